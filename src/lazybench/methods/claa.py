"""CLAA: FastKV with scores that several layers agree on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transformers import PreTrainedConfig

from lazybench.errors import check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Ratio, check_share
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.retention import PerHead
from lazybench.pruning.schedule import layers_run
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class CLAA(PolicyMethod):
    """The maximum of the last four layers' scores decides who goes past one layer; each cache keeps as large a share.

    Source: CLAA (arXiv 2602.16054). Its announced code was not found; the rule is second-hand, the details are those of
    FastKV's code, on which a snapshot of the author's builds: window of 8 queries, pooling over 7, one keep ratio for
    the tokens that go on and for the cache, both truncated to whole tokens. The first four layers keep all of their
    cache (as the snapshot's benchmark scripts set it). The depth scales with the model, the counts of layers don't.

    Deviations: the paper takes the maximum of the scores; the snapshot standardises each KV head's scores along the
    text first and takes the maximum over heads too, here ``standardise=true``.

    Args:
        keep: share of the prompt that goes on, and whose keys and values each head keeps, in (0, 1].
        retain: another share for the cache; None: ``keep``; 1: all, no eviction.
        depth: share of the model's layers that see the whole prompt (16 of 32).
        layers: how many layers' scores count, up to that depth.
        first_layers: layers from the first that keep all of their cache.
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
        standardise: see above.
    """

    keep: float = 0.1
    retain: float | None = None
    depth: float = 0.5
    layers: int = 4
    first_layers: int = 4
    window: int = 8
    pool: int = 7
    standardise: bool = False

    name: ClassVar[str] = "claa"

    def __post_init__(self) -> None:
        check_share("claa.keep", self.keep)
        check_share("claa.depth", self.depth)
        if self.retain is not None:
            check_share("claa.retain", self.retain)
        check_whole_number("claa.layers", self.layers)
        check_whole_number("claa.first_layers", self.first_layers, 0)
        check_whole_number("claa.window", self.window)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        retain = "" if self.retain is None else f" retain={self.retain:g}"
        how = " standardised" if self.standardise else ""
        named = f"keep={self.keep:g}{retain} depth={self.depth:g} layers={self.layers}{how}"
        return named + self.others("keep", "retain", "depth", "layers", "standardise")

    @property
    def scorer(self) -> AttentionScorer:
        """What each layer's tokens are scored by."""
        plain = AttentionScorer(self.window, own_columns=False, pool=self.pool)
        return replace(plain, heads="max", standardise=True) if self.standardise else plain

    def policy(self, config: PreTrainedConfig) -> Policy:
        kept = Ratio(self.keep, of="context", rounding="down")
        retained = kept if self.retain is None else replace(kept, keep=self.retain)
        by_head = replace(self.scorer, heads="mean", standardise=False)
        return Policy(
            At((layers_run(self.depth, config.num_hidden_layers) - 1,)),
            self.scorer,
            kept,
            last=self.window,
            look_back=self.layers,
            over_layers="max",
            retention=None if retained.keep == 1 else PerHead(by_head, retained, self.window, self.first_layers),
            name=self.title,
        )
