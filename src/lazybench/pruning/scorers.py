"""How much each token matters: pure functions of what one layer shows.

Every method of this field scores tokens by attention: by which queries, with or without softmax, pooled along the
text or not, reduced over the heads in one way or another. ``AttentionScorer`` has a field for each of these choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from lazybench.pruning.rows import Seen, attention_rows
from lazybench.pruning.settings import Checked, Count, Odd, Part


class Scorer(Protocol):
    """Scores candidates; a higher score stays."""

    def queries(self, prompt_tokens: int) -> int:
        """How many of the newest queries it wants to see in a prefill of ``prompt_tokens``."""
        return 0

    def __call__(self, seen: Seen) -> Tensor:
        """(batch, keys) float32 (float64 for a float64 model)."""


@dataclass(frozen=True)
class AttentionScorer(Checked, Scorer):
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
        pool: length in tokens of a mean along the text, odd, with zeros beyond the ends; 1: none.
        heads: the ``"mean"`` over query heads, or their ``"max"``.
    """

    window: Count = 1
    window_share: Part = 0.0
    newest_weight: float = 1.0
    products: bool = False
    own_columns: bool = True
    pool: Odd = 1
    heads: Literal["mean", "max"] = "mean"

    def queries(self, prompt_tokens: int) -> int:
        return self.window + int(self.window_share * prompt_tokens)

    def __call__(self, seen: Seen) -> Tensor:
        by_head = self._by_query_head(seen)
        return by_head.amax(dim=1) if self.heads == "max" else by_head.mean(dim=1)

    def by_kv_head(self, seen: Seen) -> Tensor:
        """(batch, kv_heads, keys): summed over the window, pooled per query head, summed over each group."""
        scores = self._by_query_head(seen)
        return scores.view(len(scores), seen.kv_heads, -1, scores.shape[2]).sum(dim=2)

    def _counted(self, seen: Seen) -> Tensor | None:
        """(batch, keys) who takes part; None: all."""
        if self.own_columns:
            return seen.valid
        oldest, own = seen.query_position[:, :1], self._own_queries(seen)
        if own is not None:
            oldest = seen.query_position.gather(1, own.int().argmax(dim=1, keepdim=True))
        context = seen.position < oldest
        return context if seen.valid is None else seen.valid & context

    def _by_query_head(self, seen: Seen) -> Tensor:
        """(batch, heads, keys)"""
        scores, counted = self._summed_over_window(seen), self._counted(seen)
        if self.pool > 1:
            scores = pooled(scores, self.pool, None if seen.in_order else seen.position, counted)
        return scores if counted is None else scores.masked_fill(~counted[:, None], 0.0)

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
        """(batch, queries) of the rows, from the row's oldest query that is no filler."""
        own = self._own_queries(seen)
        real = ((seen.query_position >= 0) & (True if own is None else own)).double()
        rise = (real.cumsum(1) - real) / (real.sum(1, keepdim=True) - 1).clamp(min=1)
        return real * (1.0 + (self.newest_weight - 1.0) * rise)

    def _own_queries(self, seen: Seen) -> Tensor | None:
        """(batch, queries) those in the window of each row's own prompt; None: all that are seen."""
        if not self.window_share or seen.tokens is None:
            return None
        count = torch.tensor([self.queries(tokens) for tokens in seen.tokens], device=seen.query_position.device)
        return torch.arange(seen.query_position.shape[1], 0, -1, device=count.device) <= count[:, None]


@dataclass(frozen=True)
class OutputNorm(Scorer):
    """How much a layer's attention changes each token: the L2 norm of its output before the residual (DASH).

    It asks no query what it looks for, and needs each token to be computed in the layer: nothing can come back. Where a
    family normalises that output before it adds it (Gemma), the norm is that of before.
    """

    def __call__(self, seen: Seen) -> Tensor:
        assert seen.output is not None
        return seen.output.to(torch.promote_types(seen.output.dtype, torch.float32)).norm(dim=2)


@dataclass(frozen=True, eq=False)
class Given(Scorer):
    """Scores from elsewhere, by original position: a draft model's, an answer's, a random draw's.

    Args:
        scores: (batch, prompt tokens), finite. Generated tokens, which have none, score highest.
    """

    scores: Tensor

    def __call__(self, seen: Seen) -> Tensor:
        precision = torch.promote_types(self.scores.dtype, torch.float32)
        scores = self.scores.to(seen.position.device, precision)
        known = scores.shape[1]
        by_row = scores.repeat_interleave(len(seen.position) // len(scores), dim=0)  # beams of one prompt share them
        at = by_row.gather(1, seen.position.clamp(0, known - 1))
        # no infinity: tokens that always stay must still come first, and a chunk's sum be finite
        return at.masked_fill(seen.position >= known, torch.finfo(precision).max ** 0.5)


def pooled(scores: Tensor, length: int, position: Tensor | None = None, counted: Tensor | None = None) -> Tensor:
    """``scores`` (batch, heads, keys) as the mean over ``length`` neighbours in the text, zeros beyond its ends.

    Args:
        position: (batch, keys) original positions where the keys do not lie in the text's order.
        counted: (batch, keys) False for keys that count as lying beyond the ends; None: all count.
    """
    if counted is not None:
        scores = scores.masked_fill(~counted[:, None], 0.0)
        position = None if position is None else position.masked_fill(~counted, -1)  # nobody's neighbours
    if position is None:
        return avg_pool1d(scores, length, stride=1, padding=length // 2)
    order = position.argsort(dim=1)[:, None].expand_as(scores)
    return torch.zeros_like(scores).scatter(2, order, pooled(scores.gather(2, order), length))


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
