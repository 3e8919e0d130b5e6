"""How many tokens stay: pure arithmetic on counts, or on the shares of the score that the tokens hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, pi
from typing import TYPE_CHECKING, Literal, Protocol

from lazybench.errors import UserError, check_share, check_whole_number

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
class FallingRatio:
    """A share of the older tokens that falls from layer to layer (PyramidInfer, arXiv 2405.12532, and its code).

    Older are the tokens that entered the layer, less the recent ones, which all stay. Pruning at every layer, the
    shares multiply. Nothing is pruned where ``least`` or fewer would be left, or where no older token is to go.

    Args:
        keep: the share that layer number ``layers`` would keep, in (0, 1].
        layer: 0-based index of the pruning layer.
        layers: layers of the model.
        decay: from all in layer 0 to ``keep``, along half a ``"cosine"`` or in a ``"linear"`` way; ``"constant"``:
            ``keep`` everywhere, which the published code does under the name linear.
        least: older tokens below which a layer prunes nothing.

    Raises:
        UserError: a share outside (0, 1], a layer that is not there.
    """

    keep: float
    layer: int
    layers: int
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    least: int = 64

    def __post_init__(self) -> None:
        check_share("keep", self.keep)
        check_whole_number("layer", self.layer, 0)
        check_whole_number("layers", self.layers, self.layer + 1)
        check_whole_number("least", self.least, 0)
        if self.decay not in ("cosine", "linear", "constant"):
            raise UserError(f"decay={self.decay!r} is not one of cosine, linear, constant")

    def count(self, entered: int, context: int, recent: int) -> int:
        depth = self.layer / self.layers
        left = {"cosine": (cos(pi * depth) + 1.0) / 2.0, "linear": 1.0 - depth, "constant": 0.0}[self.decay]
        stay = share_of((1.0 - self.keep) * left + self.keep, entered - recent, "down")
        return entered if stay <= min(self.least, context - recent) else recent + stay


@dataclass(frozen=True)
class Mass:
    """As many of the best units as hold a share of the whole score (top-p; UniPrefill).

    How many that are depends on the prompt.

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

    def counts(self, ranked: Tensor) -> Tensor:
        """For each row of ``ranked`` (batch, units), scores that fall and are not negative: how many units stay.

        Returns:
            (batch,) on the device of ``ranked``.
        """
        ranked = ranked.double()
        shares = ranked / ranked.sum(dim=1, keepdim=True).clamp(min=1e-300)
        held = shares.cumsum(dim=1)  # inclusive
        within = (held - shares if self.crossing else held) <= self.share + 1e-9  # all of them at a share of 1
        return within.sum(dim=1).clamp(min=1)


def share_of(share: float, tokens: int, rounding: Literal["up", "down"] = "up") -> int:
    """``share`` of ``tokens`` as a whole number, in float64: the one count rule.

    A product that float64 puts a hair above a whole number (``25 * 0.6``) counts as that number. Some published
    code truncates instead (``int(90 * 0.7)`` is 62): ``rounding="down"``.
    """
    return ceil(share * tokens - 1e-9) if rounding == "up" else int(share * tokens)


def shares_of(share: float, tokens: Tensor, rounding: Literal["up", "down"] = "up") -> Tensor:
    """``share_of`` for numbers that lie on a device, without a wait for it."""
    product = share * tokens.double()
    return (product - 1e-9).ceil().long() if rounding == "up" else product.long()


def per_boundary(budget: Budget | Mass | Sequence[Budget | Mass], boundary: int) -> Budget | Mass:
    """The budget of pruning number ``boundary``: one for all of them, or one each."""
    return budget[boundary] if isinstance(budget, Sequence) else budget
