"""LazyLLM's own settings: where tokens are pruned and how many stay (paper, section 3.2 and figure 4).

Layers are 0-based indices of the layers *after* which tokens are pruned. The paper counts from one:
its stages "1-9, 10-19, 20-28, 29-32" of Llama 2 7B prune after the indices 8, 18 and 27.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from lazybench.errors import UserError, check_share, check_whole_number, unknown_name
from lazybench.pruning.budgets import Budget, Mass, Ratio
from lazybench.pruning.revival import NEVER, THE_PAPERS, Revival

if TYPE_CHECKING:
    from lazybench.pruning.policy import Policy
from lazybench.pruning.published import PRESETS


@dataclass(frozen=True)
class PruningSchedule:
    """Pruning layers and the keep ratio at each, for one model or, by depths, for a model of any depth.

    Args:
        layers: 0-based indices of the layers after which tokens are pruned, strictly rising. They win over
            ``depths``, so that ``pruning.layers=[8,18,27]`` can be said on top of a preset that has depths.
        keep: the keep ratio at each, in (0, 1].
        depths: the same places as shares of the model's depth, in (0, 1): ``floor(depth * layers)`` layers run first.
        kind: ``"steps"``: a keep ratio at each of a few layers. ``"linear"``: the authors' own (KV Prediction, arXiv
            2410.08391), a share of the whole context that falls from layer to layer.
        start, end: linear: the shares of the depth where pruning starts and ends.
        r0, r1: linear: the share of the context that the first layer after ``start`` keeps, and those after ``end``.
        ratio_of: what a ratio is relative to. ``"entered"``: the tokens that entered the pruning
            layer (the paper's section 3.2); ``"context"``: all tokens so far; ``"mass"``: the score of those that
            entered, so that how many stay depends on the prompt.
        generated: whether the percentile of a decoding step ranges over generated tokens too
            (``"pruned"``, the default), or every one of them is kept and the ratio counts and ranks prompt
            tokens alone (``"kept"``).
        sliding_window: at a pruning layer with a sliding window, score all candidates as if there
            were none (``"ignored"``), or move the pruning to the nearest full-attention layer (``"moved"``).
        revive: whether a decoding step selects again and brings pruned tokens back (the paper), or goes on
            with the tokens that the prefill kept and the generated ones.
        revival: how it does so; a mapping of its fields serves too.

    Raises:
        UserError: unordered, repeated or negative layers, a ratio outside (0, 1], lengths that differ, no place.
    """

    layers: tuple[int, ...] | None = None
    keep: tuple[float, ...] = ()
    depths: tuple[float, ...] | None = None
    kind: Literal["steps", "linear"] = "steps"
    start: float = 0.3
    end: float = 0.9
    r0: float = 0.75
    r1: float = 0.25
    ratio_of: Literal["entered", "context", "mass"] = "entered"
    generated: Literal["pruned", "kept"] = "pruned"
    sliding_window: Literal["ignored", "moved"] = "ignored"
    revive: bool = True
    revival: Revival = THE_PAPERS

    def __post_init__(self) -> None:
        for name in ("layers", "depths", "keep"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name)))
        if self.layers is not None:
            object.__setattr__(self, "depths", None)
        if isinstance(self.revival, Mapping):
            object.__setattr__(self, "revival", Revival(**self.revival))
        if not isinstance(self.revival, Revival):
            raise UserError(f"pruning.revival={self.revival!r} must have parts, as in pruning.revival.most=8")
        _one_of("kind", self.kind, ("steps", "linear"))
        _one_of("ratio_of", self.ratio_of, ("entered", "context", "mass"))
        _one_of("generated", self.generated, ("pruned", "kept"))
        _one_of("sliding_window", self.sliding_window, ("ignored", "moved"))
        if not isinstance(self.revive, bool):
            raise UserError(f"pruning.revive={self.revive!r} must be true or false")
        if self.kind == "linear":
            self._check_linear()
        elif self.layers is None and self.depths is None:
            raise UserError("pruning.layers and pruning.depths are both empty; give one, or choose pruning=none")
        else:
            self._check_steps()

    def _check_steps(self) -> None:
        name, places = ("layers", self.layers) if self.layers is not None else ("depths", self.depths or ())
        if len(places) != len(self.keep):
            raise UserError(
                f"pruning.{name} has {len(places)} entries and pruning.keep has {len(self.keep)}; "
                "each pruning layer needs one keep ratio"
            )
        for place in places:
            if name == "layers" and (isinstance(place, bool) or not isinstance(place, int) or place < 0):
                raise UserError(f"pruning layer {place!r} must be a 0-based layer index, a whole number from 0")
            if name == "depths" and (not _is_number(place) or not 0.0 < place < 1.0):
                raise UserError(f"pruning depth {place!r} must be a share of the model's depth, between 0 and 1")
        for before, after in pairwise(places):
            if after <= before:
                raise UserError(f"pruning.{name}={list(places)} must rise strictly; {after} stands after {before}")
        for ratio in self.keep:
            check_share("keep ratio", ratio)

    def _check_linear(self) -> None:
        if self.layers or self.depths or self.keep:
            raise UserError(
                "pruning.kind=linear goes with start, end, r0 and r1; layers, depths and keep are for pruning=paper"
            )
        for name in ("start", "end", "r0", "r1"):
            if not _is_number(getattr(self, name)):
                raise UserError(f"pruning.{name}={getattr(self, name)!r} must be a number, a share between 0 and 1")
        if not 0.0 < self.start <= self.end < 1.0:
            raise UserError(f"pruning.start={self.start} and pruning.end={self.end} must hold 0 < start <= end < 1")
        check_share("pruning.r0", self.r0)
        check_share("pruning.r1", self.r1)
        if self.r1 > self.r0:
            raise UserError(
                f"pruning.r1={self.r1} must not be above pruning.r0={self.r0}: "
                "a pruned token comes back in a later step only"
            )

    def build(self, num_layers: int) -> PruningSchedule:
        """The same with ``layers``, for a model of ``num_layers`` layers.

        In a model so shallow that several depths fall on one layer, that layer prunes for all of them at once.
        """
        check_whole_number("num_layers", num_layers)
        if self.kind == "linear":
            first, last = (layers_run(depth, num_layers) for depth in (self.start, self.end))
            layers = range(first - 1, last)
            fall = (self.r1 - self.r0) / max(1, last - first)
            keep = [self.r0 + fall * i for i in range(len(layers))]
            return replace(self, kind="steps", layers=tuple(layers), keep=tuple(keep), ratio_of="context")
        if self.layers is not None:
            return replace(self, depths=None)
        together: dict[int, float] = {}
        for depth, ratio in zip(self.depths or (), self.keep, strict=True):
            layer = layers_run(depth, num_layers) - 1
            together[layer] = ratio if self.ratio_of == "context" else together.get(layer, 1.0) * ratio
        return replace(self, layers=tuple(together), keep=tuple(together.values()), depths=None)

    def resolved(self, config: Any) -> PruningSchedule:
        """For the model of this text config: ``build``, and pruning layers moved off sliding windows where asked.

        Raises:
            UserError: a layer that the model does not have; no layer to move to, or two that move to one.
        """
        built = self.build(config.num_hidden_layers)
        built.check_depth(config.num_hidden_layers)
        layers = built.pruning_layers
        if self.sliding_window == "ignored" or not layers:
            return built
        from lazybench.pruning.layers import full_attention_layers  # imports torch, which takes seconds

        targets = [layer for layer in full_attention_layers(config) if layer <= config.num_hidden_layers - 2]
        if not targets:
            raise UserError("pruning.sliding_window=moved needs a full-attention layer before the last; use 'ignored'")
        moved = tuple(min(targets, key=lambda target: (abs(target - layer), target)) for layer in layers)
        if len(set(moved)) < len(moved):
            raise UserError(
                f"pruning.sliding_window=moved sends pruning layers {list(layers)} to {list(moved)}; "
                "leave one out or use 'ignored'"
            )
        return replace(built, layers=moved)

    def check_depth(self, num_layers: int) -> None:
        """Refuse layers that a model of ``num_layers`` does not have, the last one included."""
        self.build(num_layers).policy(prune_nothing=True).check_depth(num_layers)

    def policy(self, prune_nothing: bool = False, **options: Any) -> Policy:
        """The policy of a schedule with ``layers``; places that keep everything are left out.

        Args:
            prune_nothing: leave them in.
            options: further fields of ``Policy``.
        """
        from lazybench.pruning.placement import At  # imports torch, which takes seconds
        from lazybench.pruning.policy import Policy

        places = [
            (layer, self._budget(ratio))
            for layer, ratio in zip(self.pruning_layers, self.keep, strict=True)
            if ratio < 1.0 or prune_nothing
        ]
        return Policy(
            At(tuple(layer for layer, _ in places)),
            budget=tuple(budget for _, budget in places),
            generated=self.generated,
            revival=self.revival if self.revive else NEVER,
            **options,
        )

    def _budget(self, ratio: float) -> Budget | Mass:
        return Mass(ratio) if self.ratio_of == "mass" else Ratio(ratio, self.ratio_of)

    @property
    def pruning_layers(self) -> tuple[int, ...]:
        """``layers``, of a schedule that has them."""
        return self.layers or ()

    def stages(self, num_layers: int) -> tuple[range, ...]:
        """The runs of layers between prunings: ``(range(0, 9), range(9, 18), ...)``."""
        edges = [0, *(layer + 1 for layer in self.build(num_layers).pruning_layers), num_layers]
        return tuple(range(start, stop) for start, stop in pairwise(edges))

    @classmethod
    def paper(cls, num_layers: int, keep: Sequence[float] = (0.7, 0.7, 0.7)) -> PruningSchedule:
        """Figure 4: 30% of the layers, prune 30%, and so on three times, then the last 10%.

        Figure 7's stages of Llama 2 7B (1-9, 10-19, 20-28, 29-32) follow for 32 layers.
        """
        return cls(depths=(0.3, 0.6, 0.9), keep=_tuple("keep", keep) or ()).build(num_layers)

    @classmethod
    def preset(cls, name: str) -> PruningSchedule:
        """A schedule by its name in ``published.PRESETS``, for a model of any depth.

        Raises:
            UserError: an unknown name.
        """
        if name not in PRESETS:
            raise unknown_name("pruning", name, PRESETS)
        return cls(**PRESETS[name])


def layers_run(depth: float, num_layers: int) -> int:
    """How many whole layers a share ``depth`` of a model's layers holds, at least one.

    Exact on the decimal that was written: 0.3 of 30 layers is 9, whatever the float product says.
    """
    return max(1, math.floor(Fraction(str(depth)) * num_layers))


def _tuple(name: str, value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return () if name == "keep" else None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(f"pruning.{name}={value!r} must be a list, as in 'pruning.{name}=[{value}]'")
    return tuple(value)


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float)


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown_name(f"pruning.{field}", str(value), allowed)


PAPER = PruningSchedule(**PRESETS["paper"])
