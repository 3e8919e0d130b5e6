"""Scorers: what must not matter (blocks, padding, precision) doesn't.

That each option is its formula, in whatever slots keys lie, is shown against the slow reference: test_exactness.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from seen import padded, random_seen

from lazybench.errors import UserError
from lazybench.pruning import rows
from lazybench.pruning.rows import Seen, attention_rows
from lazybench.pruning.scorers import AttentionScorer, Given

SCORERS = {
    "equation 1": AttentionScorer(),
    "window": AttentionScorer(window=5),
    "weighted window": AttentionScorer(window=5, newest_weight=1.5),
    "nearly all queries": AttentionScorer(window_share=0.8),
    "products, pooled": AttentionScorer(window=3, products=True, pool=5),
    "context, pooled": AttentionScorer(window=5, own_columns=False, pool=7),
    "max over heads": AttentionScorer(window=3, heads="max", pool=3),
}
every_scorer = pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
LAYERS = {"plain": {}, "softcap": {"softcap": 2.0}, "sinks": {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])}}


@every_scorer
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_window_scored_in_blocks_equals_it_scored_at_once(scorer, layer, monkeypatch):
    seen = random_seen(keys=17, queries=scorer.queries(17), seed=0, **layer)
    at_once = scorer(seen)
    monkeypatch.setattr(rows, "_ELEMENTS_AT_ONCE_ON_CPU", 2 * 4 * 17)  # two queries at a time
    torch.testing.assert_close(scorer(seen), at_once, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(rows, "_ELEMENTS_AT_ONCE_ON_CPU", 1)
    torch.testing.assert_close(scorer(seen), at_once, rtol=1e-12, atol=1e-12)


@every_scorer
@pytest.mark.parametrize("keys", [2, 11])  # fewer and more than the window
def test_padding_on_the_left_does_not_matter(scorer, keys):
    queries = min(keys, scorer.queries(keys))
    beyond = scorer.queries(keys) - queries  # the window reaches into the padding
    seen = random_seen(keys, queries, seed=1)
    scores, expected = scorer(padded(seen, 4, beyond)), scorer(seen)
    torch.testing.assert_close(scores[:, 4:], expected, rtol=1e-12, atol=1e-12)
    assert (scores[:, :4] == 0).all()
    assert torch.isfinite(scores).all()


@every_scorer
def test_keys_that_are_no_candidates_come_between_no_neighbours(scorer):
    """A ragged batch's decoding step has keys in its front that this row does not attend to."""
    seen = random_seen(keys=11, queries=1, seed=7)
    valid = torch.ones(1, 11, dtype=torch.bool).index_fill(1, torch.tensor([2, 5, 6]), False)
    assert seen.key is not None
    candidates = replace(seen, key=seen.key[:, :, valid[0]], position=seen.position[valid][None])
    scores = scorer(replace(seen, valid=valid, in_order=False))
    torch.testing.assert_close(scores[valid][None], scorer(candidates), rtol=1e-12, atol=1e-12)


@every_scorer
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_half_precision_scores_as_float32_does_far_beyond_its_range(scorer, layer):
    seen = random_seen(keys=11, queries=scorer.queries(11), seed=2, dtype=torch.float16, **layer)
    assert seen.query is not None
    assert seen.key is not None
    seen = replace(seen, query=seen.query * 200, key=seen.key * 200, scaling=1e-5)  # products of some millions
    assert (seen.query[:, :, -1:] @ seen.key.repeat_interleave(2, 1).transpose(2, 3)).isinf().any()
    exact = replace(seen, query=seen.query.float(), key=seen.key.float())
    torch.testing.assert_close(scorer(seen), scorer(exact), rtol=0, atol=0)
    assert torch.isfinite(scorer(seen)).all()


@every_scorer
def test_probabilities_that_the_layer_shows_score_as_its_queries_and_keys_do(scorer):
    seen = random_seen(keys=11, queries=scorer.queries(11), seed=3)
    shown = replace(seen, query=None, key=None, rows=torch.cat(list(attention_rows(seen)), dim=2))
    if scorer.products:
        with pytest.raises(UserError, match="score with softmax"):
            scorer(shown)
    else:
        torch.testing.assert_close(scorer(shown), scorer(seen), rtol=1e-12, atol=1e-12)


def test_beams_share_the_given_scores_of_their_prompt():
    given = Given(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    position = torch.tensor([[0, 1]]).expand(4, -1)
    assert given(Seen(-1, None, None, position, position[:, :0])).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
