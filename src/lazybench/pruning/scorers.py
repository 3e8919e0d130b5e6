"""How much each token matters: pure functions of what one layer shows.

Every method of this field scores tokens by attention: by which queries, with or without softmax, pooled along the
text or not, reduced over the heads in one way or another. ``AttentionScorer`` has a field for each of these choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from lazybench.pruning.rows import Seen, attention_rows
from lazybench.pruning.settings import Checked, Count, Odd, Part


class Scorer(Protocol):
    """Scores candidates; a higher score stays."""

    def queries(self, prompt_tokens: int) -> int:
        """How many of the newest queries it wants to see in a prefill of ``prompt_tokens``."""

    def __call__(self, seen: Seen) -> Tensor:
        """(batch, keys) float32 (float64 for a float64 model)."""


@dataclass(frozen=True)
class AttentionScorer(Checked):
    """The attention that the newest queries pay to each key. The defaults are LazyLLM's equation 1.

    ``s_i = (1/H) sum_h A[h, N, i]`` (arXiv 2407.14057, section 3.2): only row N of A is computed, so the cost is
    that of one decoding step's scores. A sliding window is ignored (inside it, everything older would tie at zero), so
    places given as shares of the depth keep to layers without one.

    Args:
        window: newest queries whose rows are summed (SnapKV, FastKV, CLAA: 8 to 64).
        window_share: and so large a share of the prompt beside them, added, as PyramidInfer has it.
        newest_weight: weights of the rows rise linearly from 1 for the oldest query to this.
        products: raw query-key products, unscaled and without softmax (GemFilter).
        own_columns: False: the window's own keys get no score and take no part in the pooling (FastKV, CLAA).
        pool: length in tokens of a pooling along the text, odd; 1: none.
        pool_by: ``"mean"`` (zeros beyond the ends) or ``"max"``.
        heads: how heads are reduced. ``"mean"`` over query heads, ``"max"`` over key-value heads, whose score
            is the sum over their group, or ``"query_max"`` over query heads.
        standardise: z-scores along the text, per key-value head, before the heads are reduced (CLAA's code).

    Raises:
        UserError: a window or pool below 1, an even pool.
    """

    window: Count = 1
    window_share: Part = 0.0
    newest_weight: float = 1.0
    products: bool = False
    own_columns: bool = True
    pool: Odd = 1
    pool_by: Literal["mean", "max"] = "mean"
    heads: Literal["mean", "max", "query_max"] = "mean"
    standardise: bool = False

    @property
    def signed(self) -> bool:
        """Whether scores can fall below 0, as attention probabilities can't."""
        return self.products or self.standardise

    def queries(self, prompt_tokens: int) -> int:
        return self.window + int(self.window_share * prompt_tokens)

    def __call__(self, seen: Seen) -> Tensor:
        if self.heads == "max" or self.standardise:
            by_head = self.by_kv_head(seen)  # (batch, kv_heads, keys)
            return by_head.amax(dim=1) if self.heads == "max" else by_head.mean(dim=1)
        by_head = self._by_query_head(seen, self._counted(seen))  # (batch, heads, keys)
        return by_head.amax(dim=1) if self.heads == "query_max" else by_head.mean(dim=1)

    def by_kv_head(self, seen: Seen) -> Tensor:
        """(batch, kv_heads, keys): summed over the window, pooled per query head, summed over each group."""
        counted = self._counted(seen)
        scores = self._by_query_head(seen, counted)
        batch, heads, keys = scores.shape
        scores = scores.view(batch, seen.kv_heads, heads // seen.kv_heads, keys).sum(dim=2)
        return standardised(scores, counted) if self.standardise else scores

    def _counted(self, seen: Seen) -> Tensor | None:
        """(batch, keys) who takes part; None: all."""
        if self.own_columns:
            return seen.valid
        oldest, own = seen.query_position[:, :1], self._own_queries(seen)
        if own is not None:
            oldest = seen.query_position.gather(1, own.int().argmax(dim=1, keepdim=True))
        context = seen.position < oldest
        return context if seen.valid is None else seen.valid & context

    def _by_query_head(self, seen: Seen, counted: Tensor | None) -> Tensor:
        scores = self._summed_over_window(seen)  # (batch, heads, keys)
        if self.pool > 1:
            scores = pooled(scores, self.pool, self.pool_by, None if seen.in_order else seen.position, counted)
        if counted is not None:
            scores = scores.masked_fill(~counted[:, None], 0.0)
        return scores

    def _summed_over_window(self, seen: Seen) -> Tensor:
        queries = seen.query_position.shape[1]
        if queries == 1:
            (row,) = attention_rows(seen, self.products)
            return row[:, :, 0]
        weights = self._weights(seen)[:, None, None]  # (batch, 1, 1, queries)
        total, stop = None, queries
        for block in attention_rows(seen, self.products):  # (batch, heads, queries of the block, keys that these see)
            start = stop - block.shape[2]
            rows = weights[..., start:stop].to(block.dtype).expand(-1, block.shape[1], -1, -1)
            summed = (rows @ block)[:, :, 0]
            if total is None:
                total = summed
            else:
                total[:, :, : summed.shape[2]] += summed
            stop = start
        assert total is not None, "no query, no score"
        return total

    def _weights(self, seen: Seen) -> Tensor:
        """(batch, queries) of the rows, from the row's oldest query that is none of padding."""
        start = 0 if seen.valid is None else seen.position.where(seen.valid, seen.position.max()).amin(1, keepdim=True)
        own = self._own_queries(seen)
        real = ((seen.query_position >= start) & (True if own is None else own)).double()
        rise = (real.cumsum(1) - real) / (real.sum(1, keepdim=True) - 1).clamp(min=1)
        return real * (1.0 + (self.newest_weight - 1.0) * rise)

    def _own_queries(self, seen: Seen) -> Tensor | None:
        """(batch, queries) those in the window of each row's own prompt; None: all that are seen."""
        if not self.window_share or seen.tokens is None:
            return None
        count = torch.tensor([self.queries(tokens) for tokens in seen.tokens], device=seen.query_position.device)
        return torch.arange(seen.query_position.shape[1], 0, -1, device=count.device) <= count[:, None]


@dataclass(frozen=True)
class OutputNorm:
    """How much a layer's attention changes each token: the L2 norm of its output before the residual (DASH).

    It asks no query what it looks for, and needs each token to be computed in the layer: nothing can come back. Where a
    family normalises that output before it adds it (Gemma), the norm is that of before.
    """

    def queries(self, prompt_tokens: int) -> int:
        return 0

    def __call__(self, seen: Seen) -> Tensor:
        assert seen.output is not None
        return seen.output.to(torch.promote_types(seen.output.dtype, torch.float32)).norm(dim=2)


@dataclass(frozen=True, eq=False)
class Given:
    """Scores from elsewhere, by original position: a draft model's, an answer's, a random draw's.

    Args:
        scores: (batch, prompt tokens), finite. Generated tokens, which have none, score highest.
    """

    scores: Tensor

    def queries(self, prompt_tokens: int) -> int:
        return 0

    def __call__(self, seen: Seen) -> Tensor:
        precision = torch.promote_types(self.scores.dtype, torch.float32)
        scores = self.scores.to(seen.position.device, precision)
        known = scores.shape[1]
        by_row = scores.repeat_interleave(len(seen.position) // len(scores), dim=0)  # beams of one prompt share them
        at = by_row.gather(1, seen.position.clamp(0, known - 1))
        # no infinity: tokens that always stay must still come first, and a chunk's sum be finite
        return at.masked_fill(seen.position >= known, torch.finfo(precision).max ** 0.5)


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
    """``scores`` (batch, kv_heads, keys) as z-scores along the text; keys that are not ``counted`` get 0."""
    weights = torch.ones_like(scores[:, :1]) if counted is None else counted[:, None].to(scores.dtype)
    counts = weights.sum(dim=2, keepdim=True)
    mean = (scores * weights).sum(dim=2, keepdim=True) / counts.clamp(min=1)
    variance = ((scores - mean) ** 2 * weights).sum(dim=2, keepdim=True) / (counts - 1).clamp(min=1)
    return (scores - mean) / (variance.sqrt() + 1e-8) * weights


def over_layers(
    rows: list[tuple[Tensor, Tensor]], position: Tensor, tokens: int, how: Literal["max", "mean"]
) -> Tensor:
    """Scores of several layers reduced to one, (batch, keys) for the keys at ``position``.

    Args:
        rows: each layer's scores and the positions of its keys, both (batch, keys of that layer).
        position: (batch, keys), candidates in each of these layers.
        tokens: how many positions there are.
    """
    aligned = []
    for scores, at in rows:  # fillers, at -1, share the last column
        by_position = scores.new_zeros(scores.shape[0], tokens + 1).scatter_(1, at.remainder(tokens + 1), scores)
        aligned.append(by_position.gather(1, position.remainder(tokens + 1)))
    stacked = torch.stack(aligned)
    return stacked.amax(dim=0) if how == "max" else stacked.mean(dim=0)
