"""KV-cache eviction after a full prefill: SnapKV and H2O. They save memory and decoding time, never TTFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Count, Odd, Share


@register
@dataclass(frozen=True)
class SnapKV(PolicyMethod):
    """Each KV head keeps the prompt's keys and values that the last 32 queries look at, and their own.

    Source: SnapKV (arXiv 2404.14469), as in its authors' code: softmax rows of the window summed, the window's own
    columns left out, averaged over 5 neighbours; the window always stays.

    Deviations: a share of the prompt, where the authors keep 1024 tokens. One choice per KV head, summed over its query
    heads (the authors' code repeats keys and values for each query head and chooses for each). Layers with a sliding
    window keep their cache.

    Args:
        keep: share of the prompt that each KV head keeps, the window included, in (0, 1].
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    keep: Share = 0.2
    window: Count = 32
    pool: Odd = 5

    name: ClassVar[str] = "snapkv"
    title: ClassVar[str] = "SnapKV"
    drawn_as: ClassVar[tuple[str, str]] = ("#332288", "H")

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What the keys of each head are scored by."""
        return pruning.AttentionScorer(self.window, own_columns=False, pool=self.pool)

    def policy(self, config: TextConfig) -> pruning.Policy:
        kept = pruning.Ratio(self.keep, of="context")
        return pruning.Policy(retention=pruning.PerHead(self.scorer, kept, self.window))
