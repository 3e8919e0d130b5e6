"""Taper: tokens taper off from early on, at several layers, by what many of the newest queries attend to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import LlamaConfig, PreTrainedConfig

from lazybench.errors import UserError, unknown_name
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import check_share
from lazybench.pruning.policy import Policy
from lazybench.pruning.revival import Revival
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.scorers import AttentionScorer

DEPTHS = (0.13, 0.27, 0.4, 0.53, 0.67, 0.8)
# keep ratios by preset, for FLOPs ratios of about 1.5, 2 and 3: the first pruning is the hardest
PRESETS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "safe": (DEPTHS, (0.79, 0.87, 0.9, 0.92, 0.94, 0.96)),
    "balanced": (DEPTHS, (0.6, 0.74, 0.78, 0.82, 0.86, 0.92)),
    "fast": (DEPTHS, (0.25, 0.5, 0.6, 0.7, 0.8, 0.9)),
}


@dataclass(frozen=True)
class Taper(PolicyMethod):
    """Chunks are dropped at several layers by the attention of the newest queries; decoding attends to all computed.

    Source: this project's own, on the progressive pruning of LazyLLM (arXiv 2407.14057). LazyLLM's Aux Cache is left to
    choice (``revive``): what it brings back has not made any answer closer to the plain model's (docs/taper.md).

    Args:
        preset: depths and keep ratios by name, for a FLOPs ratio of about 1.5, 2 and 3.
        depths, keep: shares of the depth after which chunks are dropped, and of what goes on there; over a preset.
        budget: what ``keep`` is a share of: the chunks that ``"entered"`` the pruning layer, those of all the
            ``"context"``, or the score of those that entered, its ``"mass"``, so that a prompt decides how many stay.
        window: newest queries that score.
        heads: how a score is reduced over heads, see ``AttentionScorer``.
        pool: length in tokens of a mean pooling along the text, odd; 1: none.
        chunk: tokens of what has survived so far that stay or go together; 1: each by itself.
        first, last, last_share: tokens that always stay: the oldest, the newest, and beside these so large a share of
            the prompt, the newest too: ``last + int(last_share * prompt)``.
        look_back, over_layers: layers whose scores count, up to the pruning layer, and how they become one.
        revive: tokens that may come back per stage in a decoding step that selects anew; 0: none ever does, so that
            what a layer drops need not run through its MLP.
        every: one decoding step in so many selects anew.
    """

    preset: Literal["safe", "balanced", "fast"] | None = "balanced"
    depths: tuple[float, ...] | None = None
    keep: tuple[float, ...] | None = None
    budget: Literal["entered", "context", "mass"] = "entered"
    window: int = 32
    heads: Literal["mean", "max", "query_max"] = "mean"
    pool: int = 1
    chunk: int = 32
    first: int = 64
    last: int = 32
    last_share: float = 0.15
    look_back: int = 4
    over_layers: Literal["mean", "max"] = "mean"
    revive: int = 0
    every: int = 8

    name: ClassVar[str] = "taper"

    def __post_init__(self) -> None:
        if self.last_share != 0:
            check_share("taper.last_share", self.last_share)
        for name in ("depths", "keep"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        if (self.depths is None) != (self.keep is None):
            raise UserError("taper.depths and taper.keep go together, one keep ratio for each depth; or give a preset")
        if self.depths is None and self.preset not in PRESETS:
            raise unknown_name("taper.preset", str(self.preset), PRESETS)
        for name, known in (
            ("heads", ("mean", "max", "query_max")),
            ("over_layers", ("mean", "max")),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(f"taper.{name}", str(getattr(self, name)), known)
        try:
            self.policy(LlamaConfig(num_hidden_layers=1_000))  # refuses what no model could take
        except UserError as error:
            words = str(error).replace("pruning.ratio_of", "taper.budget").replace("pruning.", "taper.")
            raise UserError(words) from None

    @property
    def schedule(self) -> PruningSchedule:
        """Depths, keep ratios and what comes back."""
        depths, keep = PRESETS[str(self.preset)] if self.depths is None else (self.depths, self.keep or ())
        revival = Revival(self.revive, "computed", self.every)
        return PruningSchedule(None, keep, depths, ratio_of=self.budget, revival=revival)

    @property
    def label(self) -> str:
        chosen = f"preset={self.preset}"
        if self.depths is not None:
            chosen = PruningSchedule(depths=self.depths, keep=self.keep or ()).label
        return chosen + self.others("preset", "depths", "keep")

    def policy(self, config: PreTrainedConfig) -> Policy:
        names = ("first", "last", "last_share", "chunk", "look_back", "over_layers")
        scorer = AttentionScorer(window=self.window, heads=self.heads, pool=self.pool)
        schedule = self.schedule.resolved(config)
        options = {name: getattr(self, name) for name in names}
        return schedule.policy(scorer=scorer, before_mlp=self.revive == 0, name=self.title, **options)
