"""What comes back in decoding."""

from __future__ import annotations

from dataclasses import dataclass, fields
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

    Raises:
        UserError: a negative ``most``, ``padded`` without ``most`` or without ``attend="computed"``.
    """

    most: int | None = None
    attend: Literal["selected", "computed"] = "selected"
    every: int = 1
    memory: float = 0.0
    padded: bool = False

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

    @property
    def label(self) -> str:
        """What differs from the paper, ``" most=8 attend=computed"``; empty where nothing does."""
        parts = [f" {name}={getattr(self, name)}" for name in ("most", "attend", "every", "memory", "padded")]
        plain = [f" {field.name}={field.default}" for field in fields(self)]
        return "".join(part for part in parts if part not in plain)


THE_PAPERS = Revival()
NEVER = Revival(most=0)
