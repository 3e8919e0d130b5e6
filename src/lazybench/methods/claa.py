"""CLAA: FastKV with scores that several layers agree on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.fastkv import FastKV
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Count, Number, Odd, Share

if TYPE_CHECKING:
    from lazybench.pruning.policy import Policy


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

    def policy(self, config: TextConfig) -> Policy:
        fastkv = FastKV(self.keep, self.retain or self.keep, self.depth, self.window, self.pool).policy(config)
        retention = fastkv.retention and replace(fastkv.retention, first_layers=self.first_layers)
        return replace(fastkv, look_back=self.layers, retention=retention)
