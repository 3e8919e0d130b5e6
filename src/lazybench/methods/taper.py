"""Taper: tokens taper off from early on, at several layers, by what many of the newest queries attend to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from lazybench import pruning
from lazybench.errors import UserError
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.budgets import Revival
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import Count, Number, Part

DEPTHS = (0.13, 0.27, 0.4, 0.53, 0.67, 0.8)
# what differs from the defaults, for FLOPs ratios of about 1.5, 2 and 3. A share of the score keeps single facts, which
# a share of the chunks loses; where much must go, the first pruning is the hardest.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "safe": {"depths": DEPTHS, "keep": (0.992,) * 6, "budget": "mass"},
    "balanced": {"depths": DEPTHS, "keep": (0.6, 0.74, 0.78, 0.82, 0.86, 0.92)},
    "fast": {"depths": DEPTHS, "keep": (0.25, 0.5, 0.6, 0.7, 0.8, 0.9)},
}


@register
@dataclass(frozen=True)
class Taper(PolicyMethod):
    """Chunks are dropped at several layers by the attention of the newest queries; decoding attends to all computed.

    Source: this project's own, on the progressive pruning of LazyLLM (arXiv 2407.14057). LazyLLM's Aux Cache is left to
    choice (``revive``): what it brings back has not made any answer closer to the plain model's (docs/results.md).

    Args:
        preset: depths, keep ratios and budget by name, for a FLOPs ratio of about 1.5, 2 and 3.
        depths, keep: shares of the depth after which chunks are dropped, and of what goes on there; over a preset.
        budget: what ``keep`` is a share of: the chunks that ``"entered"`` the pruning layer, those of all the
            ``"context"``, or the score of those that entered, its ``"mass"``, so that a prompt decides how many stay.
            None: as the preset has it, else ``"entered"``.
        window: newest queries that score.
        chunk: tokens of what has survived so far that stay or go together; 1: each by itself.
        first, last, last_share: tokens that always stay: the oldest, the newest, and beside these so large a share of
            the prompt, the newest too: ``last + int(last_share * prompt)``.
        look_back: layers whose scores count, up to the pruning layer; their mean.
        revive: tokens that may come back per stage in a decoding step that selects anew; 0: none ever does, so that
            what a layer drops need not run through its MLP.
        every: one decoding step in so many selects anew.
    """

    # the last one stands for presets of a calibration, which `methods.presets` reads
    preset: Annotated[Literal["safe", "balanced", "fast"], "smollm2@2x"] | None = "balanced"
    depths: tuple[float, ...] | None = None
    keep: tuple[float, ...] | None = None
    budget: Literal["entered", "context", "mass"] | None = None
    window: Count = 32
    chunk: Count = 32
    first: Number = 64
    last: Number = 32
    last_share: Part = 0.15
    look_back: Count = 4
    revive: Number | None = 0
    every: Count = 8

    name: ClassVar[str] = "taper"
    title: ClassVar[str] = "Taper"
    drawn_as: ClassVar[tuple[str, str]] = ("#0072B2", "*")
    shown: ClassVar[tuple[str, ...]] = ("preset",)
    amount: ClassVar[tuple[str, ...]] = ("preset", "keep", "last_share")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.depths is None) != (self.keep is None):
            raise UserError("taper.depths and taper.keep go together, a ratio (0.7) per depth (0.3); or give a preset")
        if self.depths is not None:
            object.__setattr__(self, "preset", None)
        elif self.preset is None:
            raise UserError(f"taper.preset=null needs taper.depths and taper.keep; or one of {', '.join(PRESETS)}")
        try:
            self.schedule  # noqa: B018 - refuses places and keep ratios that no model could take
        except UserError as error:
            raise UserError(str(error).replace("pruning.", "taper.")) from None

    @property
    def schedule(self) -> PruningSchedule:
        """Depths, keep ratios and what comes back."""
        given: Mapping[str, Any] = {"depths": self.depths, "keep": self.keep}
        preset = given if self.preset is None else PRESETS[self.preset]
        budget = self.budget or preset.get("budget", "entered")
        revival = Revival(self.revive, "computed", self.every)
        return PruningSchedule(None, preset["keep"] or (), preset["depths"], ratio_of=budget, revival=revival)

    @classmethod
    def family_of(cls, params: Mapping[str, Any]) -> str:
        depths = tuple(params.get("depths") or DEPTHS)
        return super().family_of(
            {name: value for name, value in params.items() if depths != DEPTHS or name != "depths"}
        )

    def policy(self, config: TextConfig) -> pruning.Policy:
        options = {name: getattr(self, name) for name in ("first", "last", "last_share", "chunk", "look_back")}
        return self.schedule.build(config).policy(
            scorer=pruning.AttentionScorer(self.window), over_layers="mean", before_mlp=self.revive == 0, **options
        )
