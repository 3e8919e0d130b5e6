"""What of a layer's keys and values is kept once the prefill is over (KV-cache eviction)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lazybench.pruning.budgets import Budget
from lazybench.pruning.scorers import AttentionScorer, Seen


class Retention(Protocol):
    """Asked once per full-attention layer, after the attention of the prefill."""

    def queries(self, prompt_tokens: int) -> int:
        """How many of the newest queries it wants to see."""
        ...

    def spares(self, layer: int) -> bool:
        """Whether this layer keeps all of its cache."""
        ...

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        """(batch, kv_heads, kept) slots to keep, rising; None: all."""
        ...


@dataclass(frozen=True)
class PerHead:
    """The best-scored keys of each key-value head, and the newest.

    Prefill attention is over before anything is evicted, so this saves memory and decoding time, never TTFT.

    Args:
        scorer: scores by key-value head.
        budget: keys that each head keeps, ``last`` included: of the prompt with ``of="context"``, of the keys
            that the layer computed with ``of="entered"``.
        last: newest keys that always stay.
        first_layers: layers from the first that keep everything (CLAA: 4).
    """

    scorer: AttentionScorer = field(default_factory=AttentionScorer)
    budget: Budget | None = None
    last: int = 1
    first_layers: int = 0

    def queries(self, prompt_tokens: int) -> int:
        return self.scorer.queries(prompt_tokens)

    def spares(self, layer: int) -> bool:
        return self.budget is None or layer < self.first_layers

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        keys = seen.position.shape[1]
        if self.budget is None:
            return None
        kept = max(self.last, self.budget.count(keys, prompt_tokens, self.last))
        if kept >= keys:
            return None
        scores = self.scorer.by_kv_head(seen).clone()  # (batch, kv_heads, keys), in the text's order
        scores[:, :, keys - self.last :] = torch.inf
        return scores.topk(kept, dim=2).indices.sort(dim=2).values
