"""Small examples of each method of the field, computed by hand from its paper and code, on the pure functions.

The shared one: eight tokens, a window of two queries, two key-value heads of two query heads each; ``CONTEXT`` has
the attention of each query head to the six tokens before the window, summed over the window.
"""

from __future__ import annotations

import pytest
import torch
from seen import seen_rows
from torch import Tensor

from lazybench.pruning.budgets import FallingRatio, Mass, Ratio, Tokens
from lazybench.pruning.placement import WhereRanksSettle, rank_variance
from lazybench.pruning.retention import PerHead
from lazybench.pruning.scorers import AttentionScorer, Seen, over_layers
from lazybench.pruning.selection import choose, choose_chunks, ends

CONTEXT = [
    [0.10, 0.40, 0.02, 0.30, 0.05, 0.03],
    [0.20, 0.02, 0.03, 0.05, 0.50, 0.10],
    [0.05, 0.06, 0.60, 0.04, 0.05, 0.10],
    [0.02, 0.30, 0.10, 0.12, 0.11, 0.08],
]


def shared(kv_heads: int = 2, context: list[list[float]] = CONTEXT) -> Seen:
    """Rows of the two queries, whose sums are ``context``; the window's own columns hold much that must not count."""
    sums = torch.tensor(context, dtype=torch.float64)
    rows = torch.full((len(context), 2, 8), 0.9, dtype=torch.float64)
    rows[:, 0, :6], rows[:, 1, :6] = 0.25 * sums, 0.75 * sums
    return seen_rows(rows, kv_heads)


def kept(score: Tensor, count: int, first: int = 0, last: int = 2) -> set[int]:
    position = torch.arange(score.shape[1])[None]
    return set(choose(score, position, ends(position, first, last, score.shape[1]), [count])[0].tolist())


def chunks_kept(score: Tensor, budget: Ratio | Mass, reduce: str, first: int = 0, last: int = 0) -> list[int]:
    position = torch.arange(8)[None]
    return choose_chunks(score, position, ends(position, first, last, 8), budget, 2, reduce)[0][0].tolist()  # type: ignore[arg-type]


def close(actual: Tensor, expected: list[float], digits: int = 4) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected).to(actual), rtol=0, atol=0.6 * 10**-digits)


def test_gemfilter_pools_raw_products_and_forces_no_token():
    logits = torch.tensor([5.0, 1, 0, 7, -2, 3, 2, 4])
    keys = torch.stack([logits - 2.0, torch.full((8,), 2.0)])  # two heads whose products sum to the logits
    position = torch.arange(8)[None]
    seen = Seen(13, torch.ones(1, 2, 1, 1), keys[None, :, :, None], position, position[:, 7:], scaling=0.1, kv_heads=2)
    score = AttentionScorer(products=True, pool=5)(seen)
    close(2 * score[0], [1.2, 2.6, 2.2, 1.8, 2.0, 2.8, 1.4, 1.8])  # the scorer's mean over heads is half the sum
    assert kept(score, 3, last=0) == {1, 2, 5}


@pytest.mark.parametrize(
    ("pool_by", "total", "propagated"),
    [
        ("mean", [0.3833, 0.6333, 0.68, 0.6567, 0.51, 0.34], {2, 3, 6, 7}),
        ("max", [0.96, 1.5, 1.35, 1.52, 1.02, 0.76], {1, 3, 6, 7}),
    ],
)
def test_fastkv_pools_the_window_sum_per_query_head(pool_by, total, propagated):
    score = AttentionScorer(window=2, own_columns=False, pool=3, pool_by=pool_by)(shared())
    close(4 * score[0, :6], total)
    assert (score[0, 6:] == 0).all()
    assert kept(score, 4) == propagated


def test_fastkv_keeps_the_cache_of_each_key_head_by_its_own_group():
    scorer = AttentionScorer(window=2, own_columns=False, pool=3)
    groups = scorer.by_kv_head(shared())[0]
    close(groups[0, :6], [0.24, 0.2567, 0.2733, 0.3167, 0.3433, 0.2267])
    close(groups[1, :6], [0.1433, 0.3767, 0.4067, 0.34, 0.1667, 0.1133])
    slots = PerHead(scorer, Tokens(4), last=2)(shared(), 8)
    assert slots is not None
    assert slots[0].tolist() == [[3, 4, 6, 7], [1, 2, 6, 7]]


def test_snapkv_keeps_the_cache_of_each_query_head():
    slots = PerHead(AttentionScorer(window=2, own_columns=False, pool=3), Tokens(4), last=2)(shared(kv_heads=4), 8)
    assert slots is not None
    assert slots[0].tolist() == [[1, 2, 6, 7], [4, 5, 6, 7], [1, 2, 6, 7], [1, 2, 6, 7]]


LAYER_14 = [[0.90, 0.10, 0.10, 0.10, 0.10, 0.30], [0.10, 0.20, 0.10, 0.10, 0.10, 0.12]]


@pytest.mark.parametrize(
    ("standardise", "highest", "propagated"),
    [
        (True, [1.9766, 2.0, 1.1397, 0.8936, 1.4812, 0.104], {0, 1, 6, 7}),
        (False, [0.90, 0.3767, 0.4067, 0.34, 0.3433, 0.30], {0, 2, 6, 7}),
    ],
)
def test_claa_takes_the_highest_of_two_layers(standardise, highest, propagated):
    options = {"window": 2, "own_columns": False, "heads": "max", "standardise": standardise}
    rows = [AttentionScorer(**options)(shared(context=LAYER_14)), AttentionScorer(**options, pool=3)(shared())]
    position = torch.arange(8)[None]
    score = over_layers([(row, position) for row in rows], position, 8, "max")
    close(score[0, :6], highest)
    assert kept(score, 4) == propagated


def test_claa_of_one_layer_is_fastkv():
    score = AttentionScorer(window=2, own_columns=False, pool=3)(shared())
    position = torch.arange(8)[None]
    torch.testing.assert_close(over_layers([(score, position)], position, 8, "max"), score)
    assert kept(score, 4) == {2, 3, 6, 7}


def test_asl_prunes_where_the_ranks_of_the_best_have_settled():
    ranks = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [5, 6, 4, 3, 1, 2]]
    assert rank_variance(torch.tensor(ranks[:2], dtype=torch.float64), top=2) == 4.25
    assert rank_variance(torch.tensor(ranks[1:], dtype=torch.float64), top=2) == 0.25
    scores = 1.0 / torch.cat([torch.tensor(ranks, dtype=torch.float64), torch.full((3, 2), torch.inf)], dim=1)
    decide = WhereRanksSettle(first=1, observed=2, top=2, below=0.3, last=3).begin()
    assert [decide(layer, row[None]) for layer, row in enumerate(scores)] == [False, False, True]
    assert kept(scores[2:], 4) == {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("crossing", "tokens"), [(False, [0, 1, 2, 3, 6, 7]), (True, [0, 1, 2, 3, 4, 5, 6, 7])], ids=["paper", "kernel"]
)
def test_uniprefill_keeps_the_blocks_that_hold_half_the_probability(crossing, tokens):
    blocks = torch.tensor([0.10, 0.35, 0.30, 0.25], dtype=torch.float64)
    score = blocks.repeat_interleave(2)[None] / 2
    assert chunks_kept(score, Mass(0.5, crossing), "sum", first=2, last=2) == tokens


def test_specprefill_ranks_chunks_by_their_mean_and_forces_no_token():
    rows = [[0.05, 0.30, 0.05, 0.05, 0.10, 0.05, 0.20, 0.20], [0.40, 0.05, 0.05, 0.10, 0.10, 0.10, 0.10, 0.10]]
    seen = seen_rows(torch.tensor(rows)[:, None], kv_heads=2)
    score = AttentionScorer(pool=3, heads="max")(seen)
    close(score[0], [0.15, 0.1667, 0.1333, 0.0833, 0.1, 0.1167, 0.15, 0.1333])
    close(score.view(4, 2).mean(dim=1), [0.1583, 0.1083, 0.1083, 0.1417])
    assert chunks_kept(score, Ratio(0.5), "mean") == [0, 1, 6, 7]


def test_pyramidinfer_keeps_a_falling_share_of_what_each_layer_got():
    entered = [8]
    for layer in range(3):
        entered.append(FallingRatio(0.5, layer, 4, least=1).count(entered[-1], 8, recent=1 + int(0.25 * 8)))
    assert entered == [8, 8, 7, 6]


@pytest.mark.parametrize(("keep", "last_layer", "mean"), [(0.9, 0.38, 0.77), (0.7, 0.22, 0.60)])
def test_pyramidinfer_at_3500_tokens(keep, last_layer, mean):
    entered = [3500]
    for layer in range(31):
        entered.append(FallingRatio(keep, layer, 32).count(entered[-1], 3500, recent=1 + int(0.2 * 3500)))
    assert entered[-1] / 3500 == pytest.approx(last_layer, abs=0.006)
    assert sum(entered) / 32 / 3500 == pytest.approx(mean, abs=0.006)


def test_pyramidinfer_weighs_the_newest_queries_more():
    rows = torch.zeros(1, 3, 8, dtype=torch.float64)
    for query, key in enumerate([0, 1, 2]):
        rows[0, query, key] = 1.0
    scorer = AttentionScorer(window=1, window_share=0.25, newest_weight=1.2)
    assert scorer.queries(8) == 3
    close(scorer(seen_rows(rows, 1))[0], [1.0, 1.1, 1.2, 0, 0, 0, 0, 0])
