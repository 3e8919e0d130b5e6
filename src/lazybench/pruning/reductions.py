"""Scores reduced to others: pooled along the text, standardised along it, several layers' to one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d


def pooled(
    scores: Tensor,
    length: int,
    by: Literal["mean", "max"],
    position: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """``scores`` (batch, heads, keys) pooled over ``length`` neighbours in the text.

    Args:
        by: ``"mean"`` divides by ``length`` everywhere, with zeros beyond the ends; ``"max"`` looks at what is there.
        position: (batch, keys) original positions where the keys do not lie in the text's order.
        counted: (batch, keys) False for keys that count as lying beyond the ends; None: all count.
    """
    if counted is not None:
        scores = scores.masked_fill(~counted[:, None], 0.0 if by == "mean" else -torch.inf)
        position = None if position is None else position.masked_fill(~counted, -1)  # nobody's neighbours
    order = None
    if position is not None:
        order = position.argsort(dim=1)[:, None].expand_as(scores)
        scores = scores.gather(2, order)
    pool = avg_pool1d if by == "mean" else max_pool1d
    scores = pool(scores, length, stride=1, padding=length // 2)
    return scores if order is None else torch.zeros_like(scores).scatter(2, order, scores)


def standardised(scores: Tensor, counted: Tensor | None = None) -> Tensor:
    """``scores`` (batch, kv_heads, keys) less their mean, over their standard deviation plus 1e-8, along the text.

    Args:
        counted: (batch, keys) which keys count, the others get 0; None: all.
    """
    weights = torch.ones_like(scores[:, :1]) if counted is None else counted[:, None].to(scores.dtype)
    counts = weights.sum(dim=2, keepdim=True)
    mean = (scores * weights).sum(dim=2, keepdim=True) / counts.clamp(min=1)
    variance = ((scores - mean) ** 2 * weights).sum(dim=2, keepdim=True) / (counts - 1).clamp(min=1)
    return (scores - mean) / (variance.sqrt() + 1e-8) * weights


def over_layers(
    rows: list[tuple[Tensor, Tensor]], position: Tensor, tokens: int, how: Literal["max", "mean"]
) -> Tensor:
    """Scores of several layers reduced to one, for the keys at ``position``.

    Args:
        rows: each layer's scores and the positions of its keys, both (batch, keys of that layer).
        position: (batch, keys) where the result is wanted; all were candidates in each of these layers.
        tokens: how many positions there are.

    Returns:
        (batch, keys).
    """
    aligned = []
    for scores, at in rows:  # fillers, at -1, share the last column
        by_position = scores.new_zeros(scores.shape[0], tokens + 1).scatter_(1, at.remainder(tokens + 1), scores)
        aligned.append(by_position.gather(1, position.remainder(tokens + 1)))
    stacked = torch.stack(aligned)
    return stacked.amax(dim=0) if how == "max" else stacked.mean(dim=0)
