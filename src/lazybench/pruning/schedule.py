"""Where tokens are pruned and how many stay (paper, section 3.2 and figure 4).

Layers are 0-based indices of the layers *after* which tokens are pruned. The paper counts from one:
its stages "1-9, 10-19, 20-28, 29-32" of Llama 2 7B prune after the indices 8, 18 and 27.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from lazybench.errors import UserError

RatioOf = Literal["entered", "context"]


@dataclass(frozen=True)
class PruningSchedule:
    """Pruning layers and the keep ratio at each.

    Args:
        layers: 0-based indices of the layers after which tokens are pruned, strictly rising.
        keep: the keep ratio at each of them, in (0, 1].
        ratio_of: what a ratio is relative to. ``"entered"``: the tokens that entered the pruning
            layer (the paper's section 3.2); ``"context"``: all tokens so far.
        generated: whether the percentile of a decoding step ranges over generated tokens too
            (``"pruned"``, the default), or every one of them is kept and the ratio counts and ranks prompt
            tokens alone (``"kept"``).
        sliding_window: at a pruning layer with a sliding window, score all candidates as if there
            were none (``"ignored"``), or move the pruning to the nearest full-attention layer (``"moved"``).
        revive: whether a decoding step selects again and brings pruned tokens back (the paper), or goes on
            with the tokens that the prefill kept and the generated ones (static pruning).

    Raises:
        UserError: unordered, repeated or negative layers, a ratio outside (0, 1], lengths that differ.
    """

    layers: tuple[int, ...]
    keep: tuple[float, ...]
    ratio_of: RatioOf = "entered"
    generated: Literal["pruned", "kept"] = "pruned"
    sliding_window: Literal["ignored", "moved"] = "ignored"
    revive: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "keep", tuple(self.keep))
        if len(self.layers) != len(self.keep):
            raise UserError(
                f"pruning.layers has {len(self.layers)} entries and pruning.keep has {len(self.keep)}; "
                "each pruning layer needs one keep ratio"
            )
        for layer in self.layers:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise UserError(f"pruning layer {layer!r} must be a 0-based layer index, a whole number from 0")
        for before, after in pairwise(self.layers):
            if after <= before:
                raise UserError(f"pruning.layers={list(self.layers)} must rise strictly; {after} stands after {before}")
        for ratio in self.keep:
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0.0 < ratio <= 1.0:
                raise UserError(f"keep ratio {ratio!r} must be a number above 0 and at most 1")
        _one_of("pruning.ratio_of", self.ratio_of, ("entered", "context"))
        _one_of("pruning.generated", self.generated, ("pruned", "kept"))
        _one_of("pruning.sliding_window", self.sliding_window, ("ignored", "moved"))

    def check_depth(self, num_layers: int) -> None:
        """Refuse layers that a model of ``num_layers`` does not have, the last one included.

        Raises:
            UserError: after the last layer there is nothing left to save.
        """
        for layer in self.layers:
            if layer > num_layers - 2:
                raise UserError(
                    f"pruning layer {layer} is out of range for a model of {num_layers} layers; "
                    f"allowed are the 0-based indices 0 to {num_layers - 2} (pruning after the last saves nothing)"
                )

    def kept(self, stage: int, entered: int, context: int) -> int:
        """How many tokens stay after pruning layer number ``stage``, of ``entered`` that entered it.

        ``ceil(keep * tokens)`` in float64, at least one, never more than entered. A product that
        float64 puts a hair above a whole number (``25 * 0.6``) counts as that number.
        """
        tokens = entered if self.ratio_of == "entered" else context
        return max(1, min(entered, math.ceil(self.keep[stage] * tokens - 1e-9)))

    def stages(self, num_layers: int) -> tuple[range, ...]:
        """The runs of layers between prunings: ``(range(0, 9), range(9, 18), ...)``."""
        edges = [0, *(layer + 1 for layer in self.layers), num_layers]
        return tuple(range(start, stop) for start, stop in pairwise(edges))

    @property
    def label(self) -> str:
        """A few characters for tables: ``"layers=8,18,27 keep=0.7,0.7,0.7"``."""
        return f"layers={_short(self.layers)} keep={_short(self.keep)}{self.options_label}"

    @property
    def options_label(self) -> str:
        """The options that differ from their defaults, ``" of context generated=kept"``; empty when none does."""
        text = "" if self.ratio_of == "entered" else f" of {self.ratio_of}"
        text += "" if self.generated == "pruned" else f" generated={self.generated}"
        text += "" if self.sliding_window == "ignored" else f" window={self.sliding_window}"
        return text + ("" if self.revive else " never revived")

    @classmethod
    def paper(cls, num_layers: int, keep: Sequence[float] = (0.7, 0.7, 0.7)) -> PruningSchedule:
        """Figure 4: 30% of the layers, prune 30%, and so on three times, then the last 10%.

        Figure 7's stages of Llama 2 7B (1-9, 10-19, 20-28, 29-32) follow for 32 layers.
        """
        return cls.at_depths((0.3, 0.6, 0.9), keep, num_layers)

    @classmethod
    def at_depths(
        cls, depths: Sequence[float], keep: Sequence[float], num_layers: int, ratio_of: RatioOf = "entered"
    ) -> PruningSchedule:
        """Prune once ``floor(depth * num_layers)`` layers have run, for each share of the depth in (0, 1).

        In a model so shallow that several depths fall on one layer, that layer prunes for all of them: down to the
        same share of the tokens, at once.

        Raises:
            UserError: shares outside (0, 1) or not rising, a keep ratio outside (0, 1], more or fewer of them.
        """
        for depth in depths:
            if isinstance(depth, bool) or not isinstance(depth, int | float) or not 0.0 < depth < 1.0:
                raise UserError(f"pruning depth {depth!r} must be a share of the model's depth, between 0 and 1")
        if any(after <= before for before, after in pairwise(depths)):
            raise UserError(f"pruning.depths={list(depths)} must rise strictly")
        layers = tuple(layers_run(depth, num_layers) - 1 for depth in depths)
        if len(set(layers)) == len(layers) or len(keep) != len(layers):
            return cls(layers, tuple(keep), ratio_of=ratio_of)
        cls(tuple(range(len(keep))), tuple(keep), ratio_of=ratio_of)  # refuses bad ratios before they are multiplied
        together: dict[int, float] = {}
        for layer, ratio in zip(layers, keep, strict=True):
            together[layer] = ratio if ratio_of == "context" else together.get(layer, 1.0) * ratio
        return cls(tuple(together), tuple(together.values()), ratio_of=ratio_of)

    @classmethod
    def linear(
        cls, num_layers: int, start: float = 0.3, end: float = 0.9, r0: float = 0.75, r1: float = 0.25
    ) -> PruningSchedule:
        """The authors' own schedule (KV Prediction, arXiv 2410.08391).

        The kept share of the whole context falls linearly per layer, from ``r0`` in the first layer
        after ``start`` of the depth to ``r1`` in the first layer after ``end`` of it and from there on.
        """
        if not 0.0 < start <= end < 1.0:
            raise UserError(f"pruning.start={start} and pruning.end={end} must hold 0 < start <= end < 1")
        if r1 > r0:
            raise UserError(
                f"pruning.r1={r1} must not be above pruning.r0={r0}: a pruned token comes back in a later step only"
            )
        first, last = (layers_run(depth, num_layers) for depth in (start, end))
        span = max(1, last - first)
        layers = tuple(range(first - 1, last))
        return cls(layers, tuple(r0 + (r1 - r0) * i / span for i in range(len(layers))), ratio_of="context")


def layers_run(depth: float, num_layers: int) -> int:
    """How many whole layers a share ``depth`` of a model's layers holds, at least one.

    Exact on the decimal that was written: 0.3 of 30 layers is 9, whatever the float product says.
    """
    return max(1, math.floor(Fraction(str(depth)) * num_layers))


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{field}={value!r} is not one of {', '.join(allowed)}")


def _short(values: Sequence[float]) -> str:
    if len(values) <= 4:
        return ",".join(f"{value:g}" for value in values)
    return f"{values[0]:g}..{values[-1]:g}"
