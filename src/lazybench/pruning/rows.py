"""What one layer shows those who look at it, and the rows of its attention matrix that they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazybench.errors import UserError

# Probabilities made at once, a long window of queries being scored in blocks.
_ELEMENTS_AT_ONCE = 2**25
_ELEMENTS_AT_ONCE_ON_CPU = 2**20  # what its caches hold; larger blocks are slower


@dataclass(frozen=True)
class Seen:
    """What one layer shows a scorer, after rotary embedding.

    Attributes:
        layer: its 0-based index.
        query: (batch, heads, queries, head_dim), the newest last. None where the family computes attention itself.
        key: (batch, kv_heads, keys, head_dim), the candidates in the order of their slots. None likewise.
        position: (batch, keys) original positions; -1 for a filler.
        query_position: (batch, queries); -1 for a filler.
        valid: (batch, keys) False for padding and fillers; None when every key is a candidate.
        in_order: the positions rise, fillers in front, and the newest keys are the queries' own.
        scaling: the layer's own factor of the scores.
        softcap: the layer's own cap of the scores, applied as tanh.
        sinks: (heads,) the layer's own attention sinks, which take their part of the probability.
        rows: (batch, heads, queries, keys) the layer's own probabilities, where the family computes them itself.
        kv_heads: number of key-value heads.
        tokens: tokens so far of each row of a padded batch; None: all rows have as many.
        output: (batch, queries, hidden) what the layer's attention gives each token, before the residual is added. Of
            query, key, rows and output one is there for who asked.
    """

    layer: int
    query: Tensor | None
    key: Tensor | None
    position: Tensor
    query_position: Tensor
    valid: Tensor | None = None
    in_order: bool = True
    scaling: float = 1.0
    softcap: float | None = None
    sinks: Tensor | None = None
    rows: Tensor | None = None
    kv_heads: int = 1
    tokens: Sequence[int] | None = None
    output: Tensor | None = None


def attention_rows(seen: Seen, products: bool = False) -> Iterator[Tensor]:
    """The rows of the attention matrix that belong to the given queries, in blocks of them, the newest first.

    The one place where a row of A is computed. Queries and keys are taken to float32 first, so that half precision
    can neither overflow nor tie.

    Yields:
        (batch, heads, queries of the block, keys) probabilities, or products; 0 for keys that are no candidates or
        stand behind the query. Keys behind all queries of a block are left out where they are the last.
    """
    if seen.rows is not None:
        if products:
            raise UserError("this family shows probabilities, not query-key products; score with softmax")
        yield seen.rows.to(torch.promote_types(seen.rows.dtype, torch.float32))
        return
    assert seen.query is not None
    assert seen.key is not None
    query, key = seen.query, seen.key
    batch, heads, queries, head_dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    precision = torch.promote_types(query.dtype, torch.float32)
    query, scaling = query.to(precision), 1.0 if products else seen.scaling
    columns = key.to(precision).transpose(2, 3).reshape(batch * kv_heads, head_dim, keys)
    nothing = columns.new_empty(())  # what beta=0 adds: scaling and product are one operation
    at_once = _ELEMENTS_AT_ONCE_ON_CPU if key.device.type == "cpu" else _ELEMENTS_AT_ONCE
    at_once = max(1, at_once // (batch * heads * keys))
    for stop in range(queries, 0, -at_once):
        rows = slice(max(0, stop - at_once), stop)
        count = stop - rows.start
        seen_keys = keys - queries + stop if seen.in_order else keys
        grouped = query[:, :, rows].reshape(batch * kv_heads, heads // kv_heads * count, head_dim)
        shown = columns if seen_keys == keys else columns[:, :, :seen_keys]
        scores = torch.baddbmm(nothing, grouped, shown, beta=0, alpha=scaling)
        scores = scores.view(batch, heads, count, seen_keys)
        hidden = _hidden(seen, rows, seen_keys)
        if products:
            yield scores if hidden is None else scores.masked_fill(hidden, 0.0)
            continue
        rows_of_a = probabilities(scores, hidden, seen.softcap, seen.sinks)
        sees_something = hidden is None or seen.sinks is not None or (seen.valid is None and seen.in_order)
        yield rows_of_a if sees_something else rows_of_a.nan_to_num(0.0)  # padding, or the filler of a shorter row


def probabilities(scores: Tensor, hidden: Tensor | None, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Softmax over the keys of ``scores`` (batch, heads, queries, keys), which it may overwrite.

    Args:
        hidden: True for keys that a query does not see; None: each sees all.
        softcap, sinks: see ``Seen``.
    """
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        scores = scores.masked_fill_(hidden, -torch.inf)
    if sinks is None:
        return scores.softmax(dim=-1)
    column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]


def flops_of_rows(seen: Seen, queries: int) -> float:
    """What ``attention_rows`` computes for the newest ``queries``: products with the keys that each of them sees."""
    if seen.query is None:  # the family's own probabilities
        return 0.0
    batch, heads, _, head_dim = seen.query.shape
    unseen = queries * (queries - 1) / 2 if seen.in_order else 0.0
    return 2.0 * batch * heads * head_dim * (queries * seen.position.shape[1] - unseen)


def _hidden(seen: Seen, rows: slice, keys: int) -> Tensor | None:
    """(batch, 1, rows, keys) True where a query does not see a key of the first ``keys``; None when each sees all."""
    if seen.query_position.shape[1] == 1:
        return None if seen.valid is None else ~seen.valid[:, None, None, :]
    own = seen.query_position[:, None, rows, None]
    hidden = seen.position[:, None, None, :keys] > own
    return hidden if seen.valid is None else hidden | (own < 0) | ~seen.valid[:, None, None, :keys]
