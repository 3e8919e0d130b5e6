"""How many tokens stay: pure arithmetic on counts, or on the shares of the score that the tokens hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol

from torch import Tensor

from lazybench.errors import UserError, check_whole_number


class Budget(Protocol):
    """A number of units (tokens, or chunks of them) that stay after one pruning."""

    def count(self, entered: int, context: int, recent: int) -> int:
        """How many units stay.

        Args:
            entered: units that entered the pruning layer.
            context: units there are so far, pruned ones included.
            recent: newest tokens that always stay, the scorer's window among them.
        """
        ...


@dataclass(frozen=True)
class Ratio:
    """A share of the tokens (paper, section 3.2: the top-k percentile).

    Args:
        keep: the keep ratio, in (0, 1].
        of: ``"entered"``: of the tokens that entered the pruning layer; ``"context"``: of all tokens so far.
        rounding: ``"up"``, or ``"down"`` as published code truncates.

    Raises:
        UserError: a keep ratio outside (0, 1].
    """

    keep: float
    of: Literal["entered", "context"] = "entered"
    rounding: Literal["up", "down"] = "up"

    def __post_init__(self) -> None:
        check_share("keep", self.keep)

    def count(self, entered: int, context: int, recent: int) -> int:
        return share_of(self.keep, entered if self.of == "entered" else context, self.rounding)


@dataclass(frozen=True)
class Tokens:
    """A fixed number of tokens, however long the prompt is (GemFilter, ASL).

    Raises:
        UserError: not a whole number of at least 1.
    """

    number: int

    def __post_init__(self) -> None:
        check_whole_number("tokens", self.number)

    def count(self, entered: int, context: int, recent: int) -> int:
        return self.number


@dataclass(frozen=True)
class Mass:
    """As many of the best units as hold a share of the whole score (top-p; UniPrefill).

    How many that are depends on the prompt: each pruning waits for the device once.

    Args:
        share: of the summed score, in (0, 1].
        crossing: whether the unit that crosses ``share`` stays. Either way the best one does.

    Raises:
        UserError: a share outside (0, 1].
    """

    share: float
    crossing: bool = True

    def __post_init__(self) -> None:
        check_share("mass", self.share)

    def counts(self, ranked: Tensor) -> list[int]:
        """For each row of ``ranked`` (batch, units), scores that fall and are not negative: how many units stay."""
        shares = ranked / ranked.sum(dim=1, keepdim=True)
        held = shares.cumsum(dim=1)  # inclusive
        within = (held - shares if self.crossing else held) <= self.share
        counts: list[int] = within.sum(dim=1).clamp(min=1).tolist()
        return counts


def share_of(share: float, tokens: int, rounding: Literal["up", "down"] = "up") -> int:
    """``share`` of ``tokens`` as a whole number, in float64: the one count rule.

    A product that float64 puts a hair above a whole number (``25 * 0.6``) counts as that number. Some published
    code truncates instead (``int(90 * 0.7)`` is 62): ``rounding="down"``.
    """
    return ceil(share * tokens - 1e-9) if rounding == "up" else int(share * tokens)


def check_share(name: str, share: object) -> None:
    """Refuse a share outside (0, 1].

    Raises:
        UserError: naming the parameter, its value and what is allowed.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise UserError(f"{name}={share} must be a number above 0 and at most 1")


def per_boundary(budget: Budget | Mass | Sequence[Budget | Mass], boundary: int) -> Budget | Mass:
    """The budget of pruning number ``boundary``: one for all of them, or one each."""
    return budget[boundary] if isinstance(budget, Sequence) else budget
