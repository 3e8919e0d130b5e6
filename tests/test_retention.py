"""What of a layer's cache is kept: the right number for each head, the newest always, the best beside them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from seen import random_seen

from lazybench.pruning.budgets import Ratio, Tokens
from lazybench.pruning.policy import PerHead
from lazybench.pruning.scorers import AttentionScorer


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 1000),
    keys=st.integers(3, 20),
    number=st.integers(1, 20),
    last=st.integers(1, 4),
    data=st.data(),
)
def test_each_head_keeps_the_newest_and_its_best(seed, keys, number, last, data):
    scorer = AttentionScorer(
        window=data.draw(st.integers(1, last)), pool=data.draw(st.sampled_from([1, 3])), own_columns=False
    )
    seen = random_seen(keys, min(keys, scorer.queries(keys)), seed)
    slots = PerHead(scorer, Tokens(number), last=last)(seen, keys)
    count = max(number, last)
    if count >= keys:
        assert slots is None
        return
    assert slots is not None
    assert slots.shape == (1, 2, count)
    scores = scorer.by_kv_head(seen)[0]
    for head in range(2):
        kept = slots[0, head].tolist()
        assert kept == sorted(set(kept))
        assert kept[-last:] == list(range(keys - last, keys))
        left = [float(scores[head, slot]) for slot in range(keys - last) if slot not in kept]
        assert all(float(scores[head, slot]) >= max(left) for slot in kept[:-last])


def test_a_share_is_of_the_prompt_or_of_what_the_layer_computed():
    seen = random_seen(keys=10, queries=2, seed=0)
    for of, kept in (("context", 8), ("entered", 4)):
        slots = PerHead(AttentionScorer(window=2), Ratio(0.4, of=of), last=2)(seen, 20)
        assert slots is not None
        assert slots.shape[2] == kept


def test_a_fixed_number_shares_its_layer_with_the_newest():
    slots = PerHead(AttentionScorer(), Tokens(1), last=3)(random_seen(keys=10, queries=1, seed=0), 10)
    assert slots is not None
    assert slots[0].tolist() == [[7, 8, 9]] * 2


def test_the_first_layers_and_all_layers_without_a_budget_are_spared():
    retention = PerHead(budget=Tokens(4), first_layers=2)
    assert [retention.spares(layer) for layer in range(4)] == [True, True, False, False]
    assert PerHead().spares(3)
    assert PerHead()(random_seen(keys=10, queries=1, seed=0), 10) is None
