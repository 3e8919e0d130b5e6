"""Scorers, and attention as the engine does it: what must not matter (blocks, padding, precision) doesn't.

That each option is its formula, in whatever slots keys lie, is shown against the slow reference: test_exactness.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.pruning import attention, rows
from lazybench.pruning.attention import MaskRule, lazy_attention
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.choosing import Viewers
from lazybench.pruning.policy import Policy
from lazybench.pruning.rows import Seen, attention_rows
from lazybench.pruning.scorers import AttentionScorer, Given
from lazybench.pruning.step import Step
from lazybench.pruning.trace import StepTrace, Trace

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


def random_seen(keys: int, queries: int, seed: int, dtype: torch.dtype = torch.float64, **more: Any) -> Seen:
    """One prompt's queries and keys, 4 and 2 heads of 8, drawn large enough that attention differs."""
    generator = torch.Generator().manual_seed(seed)
    query = (2.0 * torch.randn(1, 4, queries, 8, generator=generator, dtype=torch.float64)).to(dtype)
    key = (2.0 * torch.randn(1, 2, keys, 8, generator=generator, dtype=torch.float64)).to(dtype)
    position = torch.arange(keys)[None]
    return Seen(0, query, key, position, position[:, keys - queries :], scaling=8**-0.5, kv_heads=2, **more)


@every_scorer
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_window_scored_in_blocks_equals_it_scored_at_once(scorer, layer, monkeypatch):
    seen = random_seen(keys=17, queries=scorer.queries(17), seed=0, **layer)
    at_once = scorer(seen)
    monkeypatch.setattr(rows, "_ELEMENTS_AT_ONCE_ON_CPU", 2 * 4 * 17)  # two queries at a time
    torch.testing.assert_close(scorer(seen), at_once, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(rows, "_ELEMENTS_AT_ONCE_ON_CPU", 1)
    torch.testing.assert_close(scorer(seen), at_once, rtol=1e-12, atol=1e-12)


def padded(seen: Seen, padding: int, queries: int = 0) -> Seen:
    """The same prompt behind ``padding`` fillers.

    ``queries`` of them lie in the window, as in a batch whose other prompts are longer.
    """
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
    candidates = replace(seen, key=seen.key[:, :, valid[0]], position=seen.position[valid][None])
    scores = scorer(replace(seen, valid=valid, in_order=False))
    torch.testing.assert_close(scores[valid][None], scorer(candidates), rtol=1e-12, atol=1e-12)


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


class Largest(TorchDispatchMode):
    """Notes the most elements that any tensor of two last dimensions over ``least`` had."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.square = least, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for value in output if isinstance(output, tuple | list) else [output]:
            if isinstance(value, torch.Tensor) and value.dim() > 1 and min(value.shape[-2:]) >= self.least:
                self.square.append((str(function), tuple(value.shape)))
        return output


# a window in every layer, in some, a softcap, sinks
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("padded", [False, True], ids=["one prompt", "padded batch"])
def test_long_prompts_are_computed_in_blocks_whose_size_changes_nothing(family, padded, monkeypatch):
    model, half, prompt = tiny_model(family), PruningSchedule((1, 2), (0.7, 0.5)), random_prompt(200, seed=1)
    prompts, mask = left_padded([prompt, random_prompt(190, seed=4)]) if padded else (prompt, None)
    with LazyLLM(model, half):
        whole = generate_logits(model, prompts, 4, attention_mask=mask)[1]
    monkeypatch.setattr(attention, "_MASK_BLOCK", 16)
    monkeypatch.setattr(attention, "_SCORE_BLOCK", 16)
    # weights and activations have a last dimension of at most 128
    with Largest(least=150) as seen, LazyLLM(model, half):
        blocks = generate_logits(model, prompts, 4, attention_mask=mask)[1]
    assert not seen.square
    torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-5)


# ---- float16


@every_scorer
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_half_precision_scores_as_float32_does_far_beyond_its_range(scorer, layer):
    seen = random_seen(keys=11, queries=scorer.queries(11), seed=2, dtype=torch.float16, **layer)
    seen = replace(seen, query=seen.query * 200, key=seen.key * 200, scaling=1e-5)  # products of some millions
    assert (seen.query[:, :, -1:] @ seen.key.repeat_interleave(2, 1).transpose(2, 3)).isinf().any()
    exact = replace(seen, query=seen.query.float(), key=seen.key.float())
    torch.testing.assert_close(scorer(seen), scorer(exact), rtol=0, atol=0)
    assert torch.isfinite(scorer(seen)).all()


def huge_scores(tokens: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (1, heads, tokens, 16) in float16, whose scores all lie near 2 ** 18 = 262,144."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, tokens, 16, generator=generator)
    key, value = torch.randn(2, 1, 2, tokens, 16, generator=generator).unbind()
    query[..., 0] = key[..., 0] = 512.0
    return query.half(), key.half(), value.half()


@pytest.mark.parametrize(
    ("softcap", "sink"), [(1e5, None), (None, 65_504.0), (1e5, 57_536.0)]
)  # a sink as large as the capped scores
def test_attention_beyond_float16_is_that_of_float32(softcap, sink):
    """Where the attention is the engine's own."""
    sinks = None if sink is None else torch.full((4,), sink)
    states = huge_scores()
    assert (states[0] @ states[1].repeat_interleave(2, dim=1).transpose(2, 3)).isinf().all()
    outputs = []
    for dtype in (torch.float16, torch.float32):
        rule = MaskRule(cache=prefill_of(40), viewers=Viewers(Policy(), None, LlamaConfig()))
        inputs = (state.to(dtype) for state in states)
        outputs.append(lazy_attention(torch.nn.Module(), *inputs, rule, scaling=0.25, softcap=softcap, s_aux=sinks)[0])
    torch.testing.assert_close(outputs[0].float(), outputs[1], atol=2e-3, rtol=2e-3)


def prefill_of(tokens: int) -> LazyCache:
    """A cache whose first layer runs in the prefill of a policy that prunes nothing."""
    policy = Policy()
    cache = LazyCache(policy, [torch.device("cpu")], Trace())
    first = cache.begin(1, tokens, None, torch.device("cpu"))
    cache.step = Step(0, tokens, True, True)
    cache.trace.steps.append(StepTrace(tokens, True))
    cache.enter(cache.stages[0], first)
    cache.follow(0)
    return cache
