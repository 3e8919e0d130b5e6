"""How many tokens stay in a pruning, and how many come back in decoding: arithmetic on counts, and on the score's mass.

Needs no torch, so that settings are refused before it is there.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from lazybench.errors import UserError
from lazybench.pruning.settings import Checked, Count, Number, Share

if TYPE_CHECKING:
    from torch import Tensor


class Budget(Protocol):
    """A number of units (tokens, or chunks of them) that stay after one pruning."""

    def count(self, entered: int, context: int, recent: int) -> int:
        """How many units stay.

        Args:
            entered: units that entered the pruning layer.
            context: units there are so far, pruned ones included.
            recent: newest tokens that always stay, the scorer's window among them.
        """


@dataclass(frozen=True)
class Ratio(Checked):
    """A share of the tokens (paper, section 3.2: the top-k percentile).

    Args:
        keep: the keep ratio, in (0, 1].
        of: ``"entered"``: of the tokens that entered the pruning layer; ``"context"``: of all tokens so far.
        rounding: ``"up"``, or ``"down"`` as published code truncates.
    """

    keep: Share
    of: Literal["entered", "context"] = "entered"
    rounding: Literal["up", "down"] = "up"

    def count(self, entered: int, context: int, recent: int) -> int:
        return share_of(self.keep, entered if self.of == "entered" else context, self.rounding)


@dataclass(frozen=True)
class Tokens(Checked):
    """A fixed number of tokens, however long the prompt is (GemFilter, ASL)."""

    number: Count

    def count(self, entered: int, context: int, recent: int) -> int:
        return self.number


@dataclass(frozen=True)
class Mass(Checked):
    """As many of the best units as hold a share of the whole score, and the one that crosses it (top-p; UniPrefill).

    How many that are depends on the prompt.

    Args:
        share: of the summed score, in (0, 1].
    """

    share: Share

    def counts(self, ranked: Tensor) -> Tensor:
        """For each row of ``ranked`` (batch, units), scores that fall and are not negative: how many units stay.

        Returns:
            (batch,) on the device of ``ranked``.
        """
        ranked = ranked.double()
        shares = ranked / ranked.sum(dim=1, keepdim=True).clamp(min=1e-300)
        before = shares.cumsum(dim=1) - shares
        return (before <= self.share + 1e-9).sum(dim=1)  # all of them at a share of 1


def share_of(share: float, tokens: int, rounding: Literal["up", "down"] = "up") -> int:
    """``share`` of ``tokens`` as a whole number, in float64: the one count rule.

    A product that float64 puts a hair above a whole number (``25 * 0.6``) counts as that number. Some published
    code truncates instead (``int(90 * 0.7)`` is 62): ``rounding="down"``.
    """
    return ceil(share * tokens - 1e-9) if rounding == "up" else int(share * tokens)


@dataclass(frozen=True)
class Revival(Checked):
    """What a decoding step brings back from the Aux Cache.

    Args:
        most: at most so many tokens per stage and step, the best-scored of those that the budget selects and that
            have no keys and values there; the others are left out of this step's selection. None: all of them (the
            paper); 0: none, and the decoding goes on with what the prefill kept.
        attend: ``"selected"``: a step attends to what the budget selects in it (the paper). ``"computed"``: to
            all that has keys and values; the budget only says what is revived.
        every: the first decoding step after a prompt selects anew, and every n-th from there on; between them each
            stage attends to what it attended to last and the new token.
        like: ``"smollm2"``: as many tokens per stage and step as SmolLM2 revived on real text under the paper's
            schedule (``revived_smollm2.csv``), by the prompt's length. For random weights, which would revive
            nearly all; a measurement with it says nothing of which tokens.
    """

    name: ClassVar[str] = "revival"

    most: Number | None = None
    attend: Literal["selected", "computed"] = "selected"
    every: Count = 1
    like: Literal["smollm2"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.like and self.most is not None:
            raise UserError("revival.like says how many tokens come back; leave revival.most out")

    def most_in(self, stage: int, step: int, prompt_tokens: int) -> int | None:
        """How many may come back to a stage in a decoding step, both from 1; None: all."""
        if self.like is None:
            return self.most
        shares = _shares(self.like)
        row = shares[min(step, len(shares)) - 1]
        return round(row[min(stage, len(row)) - 1] * prompt_tokens)


@cache
def _shares(name: str) -> list[list[float]]:
    """(steps, stages) tokens revived, as shares of the prompt."""
    with (Path(__file__).parent / f"revived_{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [[float(value) for name, value in row.items() if name.startswith("stage")] for row in rows]


THE_PAPERS = Revival()
NEVER = Revival(most=0)
