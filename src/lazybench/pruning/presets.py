"""A schedule as a config names it, before the model's depth is known; the presets are in published.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lazybench.errors import UserError, unknown_name
from lazybench.pruning.schedule import PruningSchedule, RatioOf


@dataclass(frozen=True)
class PruningSpec:
    """Where and how much to prune, for a model of any depth.

    Args:
        kind: ``"steps"``: a keep ratio at each of a few layers (the paper's figure 4). ``"linear"``: the
            authors' own, a share of the whole context that falls from layer to layer (arXiv 2410.08391).
        layers: steps: the 0-based indices of the layers after which tokens are pruned. They win over
            ``depths``, so that ``pruning.layers=[9,19,28]`` can be said on top of a preset that has depths.
        depths: steps: the same as shares of the model's depth, in (0, 1).
        keep: steps: the keep ratio at each, in (0, 1].
        start: linear: the share of the depth after which pruning starts.
        end: linear: the share of the depth after which nothing more is pruned.
        r0: linear: the share of the context that the first layer after ``start`` keeps.
        r1: linear: the share that the layers after ``end`` keep.
        ratio_of: steps: what a keep ratio is relative to; linear is always of the context.
        generated: see ``PruningSchedule``.
        sliding_window: see ``PruningSchedule``.
        revive: see ``PruningSchedule``.

    Raises:
        UserError: what ``PruningSchedule`` refuses, neither layers nor depths, an unknown kind.
    """

    kind: Literal["steps", "linear"] = "steps"
    layers: tuple[int, ...] | None = None
    depths: tuple[float, ...] | None = None
    keep: tuple[float, ...] = ()
    start: float = 0.3
    end: float = 0.9
    r0: float = 0.75
    r1: float = 0.25
    ratio_of: RatioOf = "entered"
    generated: Literal["pruned", "kept"] = "pruned"
    sliding_window: Literal["ignored", "moved"] = "ignored"
    revive: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("steps", "linear"):
            raise unknown_name("pruning.kind", str(self.kind), ["steps", "linear"])
        for name in ("layers", "depths", "keep"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name)))
        for name in ("start", "end", "r0", "r1"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"pruning.{name}={value!r} must be a number, a share between 0 and 1")
        if not isinstance(self.revive, bool):
            raise UserError(f"pruning.revive={self.revive!r} must be true or false")
        if self.kind == "steps" and self.layers is None and self.depths is None:
            raise UserError("pruning.layers and pruning.depths are both empty; give one, or choose pruning=none")
        if self.kind == "linear" and (self.layers or self.depths or self.keep):
            raise UserError(
                "pruning.kind=linear goes with start, end, r0 and r1; layers, depths and keep are for pruning=paper"
            )
        self.build(1000)  # a model deep enough for any depths: what fails here fails for every model

    def build(self, num_layers: int) -> PruningSchedule:
        """The schedule for a model of ``num_layers`` layers.

        Raises:
            UserError: what ``PruningSchedule`` refuses. Layers that the model does not have are refused by
                ``PruningSchedule.check_depth``.
        """
        options: dict[str, Any] = {name: getattr(self, name) for name in ("generated", "sliding_window", "revive")}
        if self.kind == "linear":
            return replace(PruningSchedule.linear(num_layers, self.start, self.end, self.r0, self.r1), **options)
        if self.layers is not None:
            return PruningSchedule(self.layers, self.keep, ratio_of=self.ratio_of, **options)
        assert self.depths is not None
        return replace(PruningSchedule.at_depths(self.depths, self.keep, num_layers, self.ratio_of), **options)

    @property
    def label(self) -> str:
        """A few characters for tables: ``"depths=0.3,0.6,0.9 keep=0.7,0.7,0.7"``."""
        options = self.build(1000).options_label
        if self.kind == "linear":
            return f"linear depth={self.start:g}..{self.end:g} keep={self.r0:g}..{self.r1:g}{options}"
        if not self.keep:
            return "nothing pruned"
        where = f"depths={_listed(self.depths)}" if self.layers is None else f"layers={_listed(self.layers)}"
        return f"{where} keep={_listed(self.keep)}{options}"


def _tuple(name: str, value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return () if name == "keep" else None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(f"pruning.{name}={value!r} must be a list, as in 'pruning.{name}=[{value}]'")
    return tuple(value)


def _listed(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())
