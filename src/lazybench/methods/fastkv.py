"""FastKV: hidden states of the tokens that the last queries look at go past one layer; the KV cache keeps a share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Count, Odd, Share


@register
@dataclass(frozen=True)
class FastKV(PolicyMethod):
    """Past one layer only ``propagate`` of the prompt goes on; every layer's cache keeps ``retain`` of it per head.

    Source: FastKV (arXiv 2502.01068), by its authors' code; the paper's own text is second-hand. Tokens are scored by
    the softmax rows of the last 8 queries, summed, without the window's own columns, pooled over 7 neighbours per query
    head and summed over the heads; the last 8 tokens always stay. The layer is 15 of 32 for Llama 3.1 8B, and runs
    whole. Shares are truncated to whole tokens, the window included.

    Deviations: pooling by the mean is the first version's scripts'; the newest code's is the maximum. The first
    version's fixed counts (2048 tokens go on, 512 are kept) are left out. Behind the pruning ``retain`` is of the
    prompt too, where the code's share of what went on may be a token less. Windowed layers keep their cache.

    Args:
        propagate: share of the prompt that goes on, in (0, 1].
        retain: share of the prompt whose keys and values each KV head keeps, in (0, 1]; 1: all, no eviction.
        depth: share of the model's layers that see the whole prompt.
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    propagate: Share = 0.2
    retain: Share = 0.1
    depth: Share = 0.5  # 16 of 32
    window: Count = 8
    pool: Odd = 7

    name: ClassVar[str] = "fastkv"
    title: ClassVar[str] = "FastKV"
    drawn_as: ClassVar[tuple[str, str]] = ("#999933", ">")
    shown: ClassVar[tuple[str, ...]] = ("propagate", "retain", "depth")
    amount: ClassVar[tuple[str, ...]] = ("propagate", "depth")

    def policy(self, config: TextConfig) -> pruning.Policy:
        scorer = pruning.AttentionScorer(self.window, own_columns=False, pool=self.pool)
        kept = pruning.Ratio(self.retain, of="context", rounding="down")
        return pruning.Policy(
            (pruning.place(self.depth, config),),
            scorer,
            (replace(kept, keep=self.propagate),),
            last=self.window,
            retention=None if self.retain == 1 else pruning.PerHead(scorer, kept, self.window),
        )
