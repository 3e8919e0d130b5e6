"""First and last: a control that keeps the two ends of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazybench.contract import Request
from lazybench.methods.rerun import Before, RerunMethod, everything
from lazybench.pruning.budgets import check_share, share_of


@dataclass(frozen=True)
class FirstLast(RerunMethod):
    """Keep the beginning and the end of the prompt and drop the middle, whatever it says.

    Source: none; a control. It is what LongBench does to a prompt that is too long, and what an instruction before and
    a question behind a document make hard to beat. Tokens are numbered anew.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1].
        first: share of these that stand at the beginning, in (0, 1].
    """

    keep: float = 0.5
    first: float = 0.5

    name: ClassVar[str] = "first_last"

    def __post_init__(self) -> None:
        check_share("first_last.keep", self.keep)
        check_share("first_last.first", self.first)

    @property
    def label(self) -> str:
        return f"keep={self.keep:g}" + self.others("keep")

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        positions = everything(request)
        kept = share_of(self.keep, len(positions))
        first = share_of(self.first, kept, "down")
        return torch.cat([positions[:first], positions[len(positions) - (kept - first) :]]), Before()
