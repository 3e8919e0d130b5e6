"""H2O: keys that all queries together look at most are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import register
from lazybench.methods.snapkv import SnapKV
from lazybench.pruning.settings import Odd


@register
@dataclass(frozen=True)
class H2O(SnapKV):
    """Each KV head keeps the prompt's keys and values that got most attention from all queries, and the newest 32.

    Source: H2O (arXiv 2306.14048), as GemFilter's and SnapKV's benchmarks run it: causal probabilities of all queries
    summed, evicted once after the prefill.

    Deviations: the paper evicts in every decoding step too. One choice per KV head, summed over its query heads.
    Layers with a sliding window keep their cache.

    Args:
        keep: share of the prompt that each KV head keeps, the newest included, in (0, 1].
        window: newest tokens that stay.
        pool: length in tokens of a pooling; 1: none.
    """

    pool: Odd = 1

    name: ClassVar[str] = "h2o"
    title: ClassVar[str] = "H2O"
    drawn_as: ClassVar[tuple[str, str]] = ("#117733", "p")

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What the keys of each head are scored by."""
        return pruning.AttentionScorer(window_share=1.0, pool=self.pool)
