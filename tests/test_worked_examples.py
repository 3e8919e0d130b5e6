"""Small examples of each method of the field, computed by hand from its paper and code, on the pure functions.

The shared one: eight tokens, a window of two queries, two key-value heads of two query heads each; ``CONTEXT`` has
the attention of each query head to the six tokens before the window, summed over the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from lazybench.methods.asl import WhereRanksSettle, rank_variance
from lazybench.methods.dash import DASH
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.methods.taper import Taper
from lazybench.pruning.budgets import Mass, Ratio, Tokens
from lazybench.pruning.policy import PerHead
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import AttentionScorer, over_layers
from lazybench.pruning.selection import choose, choose_chunks, ends

CONTEXT = [
    [0.10, 0.40, 0.02, 0.30, 0.05, 0.03],
    [0.20, 0.02, 0.03, 0.05, 0.50, 0.10],
    [0.05, 0.06, 0.60, 0.04, 0.05, 0.10],
    [0.02, 0.30, 0.10, 0.12, 0.11, 0.08],
]


def seen_rows(rows: Tensor, kv_heads: int) -> Seen:
    """A layer whose probabilities are ``rows`` (heads, queries, keys), for the newest queries of one prompt."""
    _, queries, keys = rows.shape
    position = torch.arange(keys)[None]
    return Seen(0, None, None, position, position[:, keys - queries :], rows=rows[None], kv_heads=kv_heads)


def shared(kv_heads: int = 2, context: list[list[float]] = CONTEXT) -> Seen:
    """Rows of the two queries, whose sums are ``context``; the window's own columns hold much that must not count."""
    sums = torch.tensor(context, dtype=torch.float64)
    rows = torch.full((len(context), 2, 8), 0.9, dtype=torch.float64)
    rows[:, 0, :6], rows[:, 1, :6] = 0.25 * sums, 0.75 * sums
    return seen_rows(rows, kv_heads)


def kept(score: Tensor, count: int, first: int = 0, last: int = 2) -> set[int]:
    position = torch.arange(score.shape[1])[None]
    return set(choose(score, position, ends(position, first, [last], score.shape[1]), [count])[0].tolist())


def chunks_kept(
    score: Tensor, budget: Ratio | Mass, how: str, first: int = 0, last: int = 0, tokens: Sequence[int] = range(8)
) -> list[int]:
    """Of chunks of two, the best first."""
    position, text = torch.tensor([[*tokens]]), max(tokens) + 1
    return choose_chunks(score, position, ends(position, first, [last], text), budget, 2, how, [text])[0][0].tolist()


def close(actual: Tensor, expected: list[float], digits: int = 4) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected).to(actual), rtol=0, atol=0.6 * 10**-digits)


def test_a_token_that_always_stays_outranks_any_score():
    assert kept(torch.tensor([[torch.finfo(torch.float32).max, 1.0, 0.0, -5.0]]), 1, last=1) == {3}


def test_gemfilter_pools_raw_products_and_forces_no_token():
    logits = torch.tensor([5.0, 1, 0, 7, -2, 3, 2, 4])
    keys = torch.stack([logits - 2.0, torch.full((8,), 2.0)])  # two heads whose products sum to the logits
    position = torch.arange(8)[None]
    seen = Seen(13, torch.ones(1, 2, 1, 1), keys[None, :, :, None], position, position[:, 7:], scaling=0.1, kv_heads=2)
    score = AttentionScorer(products=True, pool=5)(seen)
    close(2 * score[0], [1.2, 2.6, 2.2, 1.8, 2.0, 2.8, 1.4, 1.8])  # the scorer's mean over heads is half the sum
    assert kept(score, 3, last=0) == {1, 2, 5}


def test_fastkv_pools_the_window_sum_per_query_head():
    score = AttentionScorer(window=2, own_columns=False, pool=3)(shared())
    close(4 * score[0, :6], [0.3833, 0.6333, 0.68, 0.6567, 0.51, 0.34])
    assert (score[0, 6:] == 0).all()
    assert kept(score, 4) == {2, 3, 6, 7}


def test_fastkv_keeps_the_cache_of_each_key_head_by_its_own_group_and_snapkv_of_each_query_head():
    scorer = AttentionScorer(window=2, own_columns=False, pool=3)
    groups = scorer.by_kv_head(shared())[0]
    close(groups[0, :6], [0.24, 0.2567, 0.2733, 0.3167, 0.3433, 0.2267])
    close(groups[1, :6], [0.1433, 0.3767, 0.4067, 0.34, 0.1667, 0.1133])
    by_query_head = [[1, 2, 6, 7], [4, 5, 6, 7], [1, 2, 6, 7], [1, 2, 6, 7]]
    for kv_heads, expected in ((2, [[3, 4, 6, 7], [1, 2, 6, 7]]), (4, by_query_head)):
        slots = PerHead(scorer, Tokens(4), last=2)(shared(kv_heads), 8)
        assert slots[0].tolist() == expected


def test_claa_takes_the_highest_of_two_layers():
    layer_14 = [[0.90, 0.10, 0.10, 0.10, 0.10, 0.30], [0.10, 0.20, 0.10, 0.10, 0.10, 0.12]]
    scorer, position = AttentionScorer(window=2, own_columns=False), torch.arange(8)[None]
    rows = [scorer(shared(context=layer_14)), replace(scorer, pool=3)(shared())]
    score = over_layers([(row, position) for row in rows], position, 8, "max")
    close(score[0, :6], [0.5, 0.1583, 0.17, 0.1642, 0.1275, 0.21])
    assert kept(score, 4) == {0, 5, 6, 7}


def test_asl_prunes_where_the_ranks_of_the_best_have_settled():
    ranks = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [5, 6, 4, 3, 1, 2]]
    assert rank_variance(torch.tensor(ranks[:2], dtype=torch.float64), top=2) == 4.25
    assert rank_variance(torch.tensor(ranks[1:], dtype=torch.float64), top=2) == 0.25
    scores = 1.0 / torch.cat([torch.tensor(ranks, dtype=torch.float64), torch.full((3, 2), torch.inf)], dim=1)
    settled = WhereRanksSettle(observed=2, top=2, below=0.3)()
    assert [settled(row[None]) for row in scores] == [False, False, True]
    assert kept(scores[2:], 4) == {4, 5, 6, 7}


def test_uniprefill_keeps_the_blocks_that_hold_half_the_probability_and_the_one_that_crosses_it():
    blocks = torch.tensor([0.10, 0.40, 0.30, 0.20], dtype=torch.float64)
    score = blocks.repeat_interleave(2)[None] / 2
    assert sorted(chunks_kept(score, Mass(0.5), "sum")) == [2, 3, 4, 5]
    assert sorted(chunks_kept(score, Mass(0.5), "sum", first=2, last=2)) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_specprefill_ranks_chunks_by_their_mean_and_forces_no_token():
    rows = [[0.05, 0.30, 0.05, 0.05, 0.10, 0.05, 0.20, 0.20], [0.40, 0.05, 0.05, 0.10, 0.10, 0.10, 0.10, 0.10]]
    seen = seen_rows(torch.tensor(rows)[:, None], kv_heads=2)
    score = AttentionScorer(pool=3, heads="max")(seen)
    close(score[0], [0.15, 0.1667, 0.1333, 0.0833, 0.1, 0.1167, 0.15, 0.1333])
    close(score.view(4, 2).mean(dim=1), [0.1583, 0.1083, 0.1083, 0.1417])
    assert sorted(chunks_kept(score, Ratio(0.5), "mean")) == [0, 1, 6, 7]


def test_dash_lets_the_tokens_go_on_that_attention_changes_most():
    method = DASH(keep=0.5, depth=0.4)
    policy = method.policy(LlamaConfig(num_hidden_layers=10))
    assert (policy.layers, policy.before_mlp, policy.revives) == ((3,), True, False)
    updates = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [-6.0, 8.0], [1.0, 1.0], [0.0, -2.0], [0.1, 0.0]]])
    position = torch.arange(6)[None]
    score = policy.scorer(Seen(3, None, None, position, position, output=updates))
    close(score[0], [5.0, 1.0, 10.0, 1.4142, 2.0, 0.1])
    # three of six: the last one whatever its norm, and the two longest
    assert kept(score, policy.budget[0].count(6, 6, policy.last), last=policy.last) == {0, 2, 5}


@pytest.mark.parametrize(("keep", "last_layer", "mean"), [(0.9, 0.38, 0.77), (0.7, 0.22, 0.60)])
def test_pyramidinfer_at_3500_tokens(keep, last_layer, mean):
    entered = [3500]
    for layer in range(31):
        entered.append(FallingRatio(keep, layer, 32).count(entered[-1], 3500, recent=1 + int(0.2 * 3500)))
    assert entered[-1] / 3500 == pytest.approx(last_layer, abs=0.006)
    assert sum(entered) / 32 / 3500 == pytest.approx(mean, abs=0.006)
    assert entered[1] == 3500  # the first layer drops nothing, nor does any of a short prompt, of 47 older tokens
    assert FallingRatio(keep, 31, 32).count(60, 60, recent=13) == 60


def test_pyramidinfer_weighs_the_newest_queries_more():
    rows = torch.zeros(1, 3, 8, dtype=torch.float64)
    for query, key in enumerate([0, 1, 2]):
        rows[0, query, key] = 1.0
    scorer = AttentionScorer(window=1, window_share=0.25, newest_weight=1.2)
    assert scorer.queries(8) == 3
    close(scorer(seen_rows(rows, 1))[0], [1.0, 1.1, 1.2, 0, 0, 0, 0, 0])


def test_taper_drops_chunks_twice_and_brings_the_best_of_them_back():
    method = Taper(depths=(0.25, 0.5), keep=(0.5, 0.3), window=2, chunk=2, first=1, last=2, revive=2)
    policy = method.policy(LlamaConfig(num_hidden_layers=8))
    assert policy.layers == (1, 3)
    assert (policy.chunk, policy.chunk_score, policy.first, policy.last) == (2, "sum", 1, 2)
    close(4 * policy.scorer(shared())[0], [0.37, 0.78, 0.75, 0.51, 0.71, 0.31, 7.2, 7.2])
    # chunks 01, 23, 45, 67 sum to 1.15, 1.26, 1.02 and 14.4: the best two of four, and token 0
    kept = sorted(chunks_kept(policy.scorer(shared()), policy.budget[0], "sum", 1, 2))
    assert kept == [0, 2, 3, 6, 7]
    # of what is left the chunks are 02, 36, 7: the best one of three, and the ends 0 and 67
    score = torch.tensor([[0.1, 0.2, 0.3, 0.2, 0.1]])
    assert sorted(chunks_kept(score, policy.budget[1], "sum", 1, 2, kept)) == [0, 3, 6, 7]
    # a decoding step ranks all nine: chunks 45, 67 and 01 of five; those that are not computed come back, two at most
    score = torch.tensor([[0.05, 0.1, 0.02, 0.03, 0.3, 0.2, 0.1, 0.1, 0.1]])
    wanted = chunks_kept(score, policy.budget[0], "sum", 1, 2, range(9))
    assert sorted(wanted) == [0, 1, 4, 5, 6, 7, 8]
    assert [token for token in wanted if token not in (*kept, 8)][: policy.revival.most] == [4, 5]
    assert (policy.revival.attend, policy.revival.every) == ("computed", 8)


def test_tapers_keep_is_a_share_of_chunks_or_of_the_score():
    places = {"depths": (0.25, 0.5, 0.75), "keep": (0.8, 1.0, 0.6)}
    config = LlamaConfig(num_hidden_layers=8)
    by_mass = Taper(**places, budget="mass", chunk=2, first=1, last=2).policy(config)
    assert by_mass.layers == (1, 5)  # all of the score: nothing is dropped
    assert by_mass.budget == (Mass(0.8), Mass(0.6))
    assert Taper(**places, budget="context").policy(config).budget == (Ratio(0.8, "context"), Ratio(0.6, "context"))
    assert Taper("safe").policy(config).budget == (Mass(0.992),) * 6  # single facts outlive a share of the score
    assert Taper("safe", budget="context").policy(config).budget == (Ratio(0.992, "context"),) * 6


def test_taper_saves_the_mlp_where_nothing_comes_back():
    for revive, revives in ((0, False), (8, True), (None, True)):  # None: as many as are wanted
        policy = Taper(revive=revive).policy(LlamaConfig())
        assert (policy.revives, policy.before_mlp) == (revives, not revives)
