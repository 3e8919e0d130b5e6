"""What comes back in decoding."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lazybench.errors import UserError, check_whole_number


@dataclass(frozen=True)
class Revival:
    """What a decoding step, or a later turn's prompt, brings back from the Aux Cache.

    Args:
        most: at most so many tokens per stage and step, the best-scored of those that the budget selects and that
            have no keys and values there; the others are left out of this step's selection. None: all of them (the
            paper); 0: none, and the decoding goes on with what the prefill kept.
        attend: ``"selected"``: a step attends to what the budget selects in it (the paper). ``"computed"``: to
            all that has keys and values; the budget only says what is revived.
        every: the first decoding step after a prompt selects anew, and every n-th from there on; between them each
            stage attends to what it attended to last and the new token.
        memory: weight of the past in a running mean of the scores over steps, in [0, 1), kept at each pruning layer
            from the prefill on. A step changes the means of its candidates alone; a token's first score stands by
            itself. 0: each step by itself.
        padded: always ``most`` rows to compute per stage, fillers among them: shapes are fixed, and no step waits
            for the device.
        like: ``"smollm2"``: as many tokens per stage and step as SmolLM2 revived on real text under the paper's
            schedule (``revived_smollm2.csv``), by the prompt's length. For random weights, which would revive
            nearly all; a measurement with it says nothing of which tokens.

    Raises:
        UserError: a negative ``most``, ``padded`` without ``most`` or without ``attend="computed"``, ``like`` with
            ``most``.
    """

    most: int | None = None
    attend: Literal["selected", "computed"] = "selected"
    every: int = 1
    memory: float = 0.0
    padded: bool = False
    like: Literal["smollm2"] | None = None

    def __post_init__(self) -> None:
        if self.most is not None:
            check_whole_number("revival.most", self.most, 0)
        check_whole_number("revival.every", self.every)
        if self.attend not in ("selected", "computed"):
            raise UserError(f"revival.attend={self.attend!r} is not one of selected, computed")
        if not 0.0 <= self.memory < 1.0:
            raise UserError(f"revival.memory={self.memory} must be at least 0 and below 1")
        if self.padded and (not self.most or self.attend != "computed"):
            raise UserError("revival.padded=true needs revival.most of at least 1 and revival.attend=computed")

        if self.like not in (None, "smollm2"):
            raise UserError(f"revival.like={self.like!r} is not one of null, smollm2")
        if self.like and self.most is not None:
            raise UserError("revival.like says how many tokens come back; leave revival.most out")

    @property
    def capped(self) -> bool:
        """Only the best of the tokens that the budget wants back may come."""
        return self.most is not None or self.like is not None

    def most_in(self, stage: int, step: int, prompt_tokens: int) -> int | None:
        """How many may come back to a stage in a decoding step, both from 1; None: all."""
        if self.like is None or not step:
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
