"""Random token drop: a random part of the prompt never reaches the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lazybench.contract import Method, Request, Response
from lazybench.errors import check_whole_number
from lazybench.methods.shortening import answer, check_share, kept_tokens


@dataclass(frozen=True)
class RandomDrop(Method):
    """Drop prompt tokens at random, each with the same chance, before the model sees them.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "random token drop", mean of 5 runs, after Yao et al. 2022
    (random-LTD, arXiv 2211.11586).

    Deviations: none from LazyLLM's words. Of random-LTD only the draw is left: that method drops during
    training and lets the first and the last layers see every token. No token is exempt, the first and the
    last neither. Kept tokens stay in the text's order and are numbered anew: the model sees a shorter prompt.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1].
        repeats: draws per sample, each measured: the paper's five.
    """

    keep: float = 0.5
    repeats: int = 5

    name: ClassVar[str] = "random_drop"

    def __post_init__(self) -> None:
        check_share("random_drop.keep", self.keep)
        check_whole_number("random_drop.repeats", self.repeats)

    @property
    def label(self) -> str:
        return f"keep={self.keep:g}"

    def run(self, request: Request) -> Response:
        tokens = request.prompt_ids.shape[1]
        draw = torch.randperm(tokens, generator=torch.Generator().manual_seed(request.seed))
        positions = draw[: kept_tokens(self.keep, tokens)].sort().values
        return answer(request, request.prompt_ids[:, positions.to(request.prompt_ids.device)])
