"""Faults of the engine that gave a wrong number without an error, each held by a test."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tiny_models import random_prompt, shared_model, tiny_model
from torch import Tensor
from transformers import Cache, LlamaConfig, PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.pruning import legacy
from lazybench.pruning.attention import MaskRule, lazy_attention
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.choosing import Viewers
from lazybench.pruning.policy import Policy
from lazybench.pruning.step import Step
from lazybench.pruning.trace import StepTrace, Trace

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
PROMPT = random_prompt(20, seed=3)


def generate(model: PreTrainedModel, prompt: Tensor, new_tokens: int, cache: Cache | None = None) -> Any:
    """``model.generate``, greedy, with its cache in what it returns."""
    kwargs = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": new_tokens, "do_sample": False}
    return model.generate(prompt, past_key_values=cache, return_dict_in_generate=True, **kwargs)


# ---- float16


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
    """Where the attention is the engine's own; what scores beyond float16 select is shown in test_scorers.py."""
    sinks = None if sink is None else torch.full((4,), sink)
    states = huge_scores()
    assert (states[0] @ states[1].repeat_interleave(2, dim=1).transpose(2, 3)).isinf().all()
    outputs = []
    for dtype in (torch.float16, torch.float32):
        rule = MaskRule(cache=prefill_of(40), viewers=Viewers(Policy.nothing_pruned(), None, LlamaConfig()))
        inputs = (state.to(dtype) for state in states)
        outputs.append(lazy_attention(torch.nn.Module(), *inputs, rule, scaling=0.25, softcap=softcap, s_aux=sinks)[0])
    torch.testing.assert_close(outputs[0].float(), outputs[1], atol=2e-3, rtol=2e-3)


def prefill_of(tokens: int) -> LazyCache:
    """A cache whose first layer runs in the prefill of a policy that prunes nothing."""
    policy = Policy.nothing_pruned()
    cache = LazyCache(policy, [torch.device("cpu")], Trace(), (lambda: None, policy))
    cache.start_batch(1, tokens, None)
    cache.step = Step(0, tokens, True, True)
    cache.trace.steps.append(StepTrace(tokens, True))
    cache.enter(cache.stages[0], cache.stages[0].append(tokens, torch.arange(tokens)[None], None, [tokens]))
    cache.follow(0)
    return cache


def test_families_with_ready_made_masks_do_not_overflow_either():
    query, key, _ = huge_scores()
    key = key.repeat_interleave(2, dim=1)
    for mask in (torch.ones(1, 1, 40, 40, dtype=torch.bool), torch.zeros(1, 1, 40, 40)):
        rows = legacy._rows(query[:, :, -1:], key, mask, 0.25)  # (1, heads, 1, keys)
        assert rows.isfinite().all()
        single = (query[:, :, -1:].float() @ key.float().transpose(2, 3) * 0.25).softmax(dim=-1)
        assert torch.equal(rows[:, :, 0].mean(dim=1).topk(20).indices, single[:, :, 0].mean(dim=1).topk(20).indices)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "falcon"])
def test_rows_that_revive_different_numbers_leave_no_nan_in_the_cache(family):
    model = shared_model(family)
    with LazyLLM(model, PRUNED):
        cache = generate(model, torch.cat([random_prompt(20, seed) for seed in (3, 4, 5)]), 8).past_key_values
    assert all(buffer.isfinite().all() for layer in range(4) for buffer in cache.arena(layer)._buffers)


# ---- whose cache it is, and what is prompt


def with_turn(output: Any, turn: Tensor) -> Tensor:
    return torch.cat([output.sequences, turn], dim=1)


FIRST = PruningSchedule((0, 1), (0.6, 0.5))


@pytest.mark.parametrize(
    ("family", "seed", "then", "words"),
    [
        *(
            ("llama", 0, PruningSchedule(layers, (0.6,) * len(layers)), rf"layers, budget differ.*\(0, 1\), not {said}")
            for layers, said in (((0,), r"\(0,\)"), ((0, 1, 2), r"\(0, 1, 2\)"), ((0, 2), r"\(0, 2\)"))
        ),
        ("llama", 1, FIRST, "another model"),
        *((family, 0, None, "under LazyLLM") for family in ("llama", "gpt2", "falcon")),
    ],
)
def test_a_cache_continues_where_it_began_alone(family, seed, then, words):
    """Not under another schedule, in another model nor in the plain one (``None``)."""
    model, other = shared_model(family), tiny_model(family, seed=1) if seed else shared_model(family)
    with LazyLLM(model, FIRST):
        first = generate(model, PROMPT, 4)
    longer = with_turn(first, PROMPT)
    with LazyLLM(other, then) if then else nullcontext(), pytest.raises(UserError, match=words):
        generate(other, longer, 2, first.past_key_values)
    with LazyLLM(model, FIRST):  # and is none the worse for it
        assert generate(model, longer, 2, first.past_key_values).sequences.shape == (1, 46)


def test_a_cache_that_a_failed_pass_left_incomplete_is_refused_everywhere():
    model = tiny_model("llama")
    with LazyLLM(model, PRUNED):
        first = generate(model, PROMPT, 4)
    longer, cache = with_turn(first, PROMPT), first.past_key_values
    layer = model.model.layers[2]
    with LazyLLM(model, PRUNED):
        failing = layer.mlp.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model, longer, 2, cache)
        failing.remove()
        generate(model, PROMPT, 2)
        with pytest.raises(UserError, match="failed halfway"):
            generate(model, longer, 2, cache)
    with pytest.raises(UserError, match="under LazyLLM"):
        generate(model, longer, 2, cache)


def test_a_one_token_turn_is_prompt_and_a_generation_taken_up_again_is_not():
    model = shared_model("llama")
    turn = random_prompt(1, seed=5)
    kept = PruningSchedule((1,), (0.3,))
    with LazyLLM(model, kept) as lazy:
        whole = generate(model, PROMPT, 6)
        expected = lazy.trace
        first = generate(model, PROMPT, 3)
        again = generate(model, first.sequences, 3, first.past_key_values)
        assert torch.equal(again.sequences, whole.sequences)
        assert lazy.trace == expected
        first = generate(model, PROMPT, 3)
        assert not torch.equal(turn, first.sequences[:, -1:])
        replaced = torch.cat([first.sequences[:, :-1], turn], dim=1)  # the user's token in place of the last generated
        generate(model, replaced, 2, first.past_key_values)
    assert [step.is_prompt for step in lazy.trace.steps] == [True, False, False, True, False]
    assert lazy.trace.prompt_tokens == 21
    assert first.past_key_values.prompt_end == 23


def test_a_cache_continued_in_another_context_keeps_its_trace():
    model = shared_model("llama")
    with LazyLLM(model, PRUNED):
        first = generate(model, PROMPT, 4)
    with LazyLLM(model, PRUNED) as lazy:
        generate(model, PROMPT, 2)
        assert len(lazy.trace.steps) == 2
        generate(model, with_turn(first, PROMPT), 3, first.past_key_values)
    assert [step.new for step in lazy.trace.steps] == [20, 1, 1, 1, 21, 1, 1]
    assert lazy.trace.prompt_tokens == 41
    assert 0.3 < lazy.trace.prompt_tokens_computed_mean <= 1.0


# ---- a cache that is dropped in the middle of a call


def test_a_switch_of_rope_factors_in_mid_generation_loses_no_step():
    """Phi-3's ``generate`` drops the cache where its prompt outgrows the short factors, and runs everything again."""

    def run(longest: int) -> Trace:
        factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": longest}
        rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
        fields = {"rope_parameters": rope, "original_max_position_embeddings": longest, "sliding_window": None}
        with LazyLLM(model := tiny_model("phi3", **fields), PRUNED) as lazy:
            for _ in range(2):  # and the next call is a generation of its own
                generate(model, PROMPT, 12)
        return lazy.trace

    switched, plain = run(26), run(200)
    assert len(switched.steps) == len(plain.steps) == len(switched.kv_bytes) == 12
    assert switched.steps[0] == plain.steps[0]
    assert switched.prompt_tokens == plain.prompt_tokens == 20
    (again,) = [step for step in switched.steps if step.again]
    assert (again.new, again.again, again.computed) == (27, 26, (27, 19, 12, 9))
    computed = switched.prompt_tokens_computed
    at = switched.steps.index(again)
    assert computed[at][0] == pytest.approx(1 + 26 / 20)  # all of it was computed twice in the first stage
