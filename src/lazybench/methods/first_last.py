"""First and last: a control that keeps the two ends of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import RerunMethod, register
from lazybench.methods.request import Before, Request, Tensor
from lazybench.pruning.settings import Share


@register
@dataclass(frozen=True)
class FirstLast(RerunMethod):
    """Keep the beginning and the end of the prompt and drop the middle, whatever it says.

    Source: none; a control. It is what LongBench does to a prompt that is too long, and what an instruction before and
    a question behind a document make hard to beat. Tokens are numbered anew.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1].
        first: share of these that stand at the beginning, in (0, 1].
    """

    keep: Share = 0.5
    first: Share = 0.5

    name: ClassVar[str] = "first_last"
    title: ClassVar[str] = "First and last"
    looks: ClassVar[bool] = False
    drawn_as: ClassVar[tuple[str, str]] = ("#000000", "h")

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        from lazybench.methods.running import everything

        positions = everything(request)
        kept = pruning.share_of(self.keep, len(positions))
        first = pruning.share_of(self.first, kept, "down")
        return positions[(positions < first) | (positions >= len(positions) - (kept - first))], Before()
