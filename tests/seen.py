"""What one layer shows a scorer: drawn at random, or written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazybench.pruning.rows import Seen


def seen_rows(rows: Tensor, kv_heads: int) -> Seen:
    """A layer whose probabilities are ``rows`` (heads, queries, keys), for the newest queries of one prompt."""
    _, queries, keys = rows.shape
    position = torch.arange(keys)[None]
    return Seen(0, None, None, position, position[:, keys - queries :], rows=rows[None], kv_heads=kv_heads)


def random_seen(
    keys: int,
    queries: int,
    seed: int,
    heads: int = 4,
    kv_heads: int = 2,
    dtype: torch.dtype = torch.float64,
    **more: Any,
) -> Seen:
    """One prompt's queries and keys, head dimension 8, drawn large enough that attention differs."""
    generator = torch.Generator().manual_seed(seed)
    query = (2.0 * torch.randn(1, heads, queries, 8, generator=generator, dtype=torch.float64)).to(dtype)
    key = (2.0 * torch.randn(1, kv_heads, keys, 8, generator=generator, dtype=torch.float64)).to(dtype)
    position = torch.arange(keys)[None]
    return Seen(0, query, key, position, position[:, keys - queries :], scaling=8**-0.5, kv_heads=kv_heads, **more)


def padded(seen: Seen, padding: int, queries: int = 0) -> Seen:
    """The same prompt behind ``padding`` fillers.

    ``queries`` of them lie in the window, as in a batch whose other prompts are longer.
    """
    assert seen.key is not None
    assert seen.query is not None
    noise = torch.randn(*seen.key.shape[:2], padding, 8, generator=torch.Generator().manual_seed(9)).to(seen.key)
    front = torch.full((1, padding), -1)
    return replace(
        seen,
        key=torch.cat([noise, seen.key], dim=2),
        position=torch.cat([front, seen.position], dim=1),
        query=torch.cat([torch.ones_like(seen.query[:, :, :1]).repeat(1, 1, queries, 1), seen.query], dim=2),
        query_position=torch.cat([front[:, padding - queries :], seen.query_position], dim=1),
        valid=torch.cat([front, seen.position], dim=1) >= 0,
    )
