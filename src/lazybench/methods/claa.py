"""CLAA: FastKV with scores that several layers agree on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Count, Number, Odd, Share


@register
@dataclass(frozen=True)
class CLAA(PolicyMethod):
    """The maximum of the last four layers' scores decides who goes past one layer; each cache keeps as large a share.

    Source: CLAA (arXiv 2602.16054). Its announced code was not found; the rule is second-hand, the details are those of
    FastKV's code, on which a snapshot of the author's builds: window of 8 queries, pooling over 7, one keep ratio for
    the tokens that go on and for the cache, both truncated to whole tokens. The first four layers keep all of their
    cache (as the snapshot's benchmark scripts set it). The depth scales with the model, the counts of layers don't.

    Deviations: none from the paper, which takes the maximum of the scores; the snapshot standardises each KV head's
    scores along the text first and takes the maximum over heads too.

    Args:
        keep: share of the prompt that goes on, and whose keys and values each head keeps, in (0, 1].
        retain: another share for the cache; None: ``keep``; 1: all, no eviction.
        depth: share of the model's layers that see the whole prompt (16 of 32).
        layers: how many layers' scores count, up to that depth.
        first_layers: layers from the first that keep all of their cache.
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    keep: Share = 0.1
    retain: Share | None = None
    depth: Share = 0.5
    layers: Count = 4
    first_layers: Number = 4
    window: Count = 8
    pool: Odd = 7

    name: ClassVar[str] = "claa"
    title: ClassVar[str] = "CLAA"
    drawn_as: ClassVar[tuple[str, str]] = ("#882255", "<")
    shown: ClassVar[tuple[str, ...]] = ("keep", "retain", "depth", "layers")
    amount: ClassVar[tuple[str, ...]] = ("keep", "depth")

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What each layer's tokens are scored by."""
        return pruning.AttentionScorer(self.window, own_columns=False, pool=self.pool)

    def policy(self, config: TextConfig) -> pruning.Policy:
        kept = pruning.Ratio(self.keep, of="context", rounding="down")
        retained = replace(kept, keep=self.keep if self.retain is None else self.retain)
        by_head = pruning.PerHead(self.scorer, retained, self.window, self.first_layers)
        return pruning.Policy(
            (pruning.place(self.depth, config),),
            self.scorer,
            (kept,),
            last=self.window,
            look_back=self.layers,
            over_layers="max",
            retention=None if retained.keep == 1 else by_head,
        )
