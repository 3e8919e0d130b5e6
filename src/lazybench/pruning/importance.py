"""Equation 1: how much attention the last token pays to each token."""

from __future__ import annotations

import torch
from torch import Tensor


def last_query_importance(
    query: Tensor,
    key: Tensor,
    scaling: float,
    valid: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The attention probability of each key for the last query, averaged over the query heads.

    Paper, section 3.2, equation 1: ``s_i = (1/H) sum_h A[h, N, i]``. Only row N of A is computed, so the cost
    is that of one decoding step's scores. Grouped-query attention averages over query heads. A sliding
    window is ignored (inside it, everything older would tie at zero).

    Args:
        query: (batch, heads, queries, head_dim), after rotary embeddings; only the last query is used.
        key: (batch, kv_heads, keys, head_dim), the candidates.
        scaling: the layer's own factor of the scores.
        valid: (batch, keys) False for keys that are no candidates (padding); None when all are.
        softcap: the layer's own cap of the scores, applied as tanh.
        sinks: (heads,) the layer's own attention sinks, which take their part of the probability.

    Returns:
        (batch, keys) float32, or float64 for a float64 model.
    """
    batch, heads, _, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    # in float32 from the start: float16 ends at 65,504, which scores may exceed
    wide = torch.promote_types(query.dtype, torch.float32)
    last = query[:, :, -1].to(wide).reshape(batch, kv_heads, heads // kv_heads, head_dim) * scaling
    scores = last @ key.to(wide).transpose(2, 3)  # (batch, kv_heads, heads per kv_head, keys)
    scores = scores.reshape(batch, heads, keys)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, :], float("-inf"))
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, heads, 1).expand(batch, heads, 1)
        return torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1].mean(dim=1)
    return scores.softmax(dim=-1).mean(dim=1)
