"""Faults of the engine that gave a wrong number without an error, each held by a test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import random_prompt, shared_model, tiny_model
from torch import Tensor
from transformers import Cache, LlamaConfig, PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
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


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "falcon"])
def test_rows_that_revive_different_numbers_leave_no_nan_in_the_cache(family):
    model = shared_model(family)
    with LazyLLM(model, PRUNED):
        cache = generate(model, torch.cat([random_prompt(20, seed) for seed in (3, 4, 5)]), 8).past_key_values
    assert all(buffer.isfinite().all() for layer in range(4) for buffer in cache.arena(layer)._buffers)


# ---- whose cache it is


FIRST = PruningSchedule((0, 1), (0.6, 0.5))


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_a_cache_goes_on_one_token_at_a_time_where_it_began_alone(family):
    model, other = shared_model(family), tiny_model(family, seed=1)
    with LazyLLM(model, FIRST):
        whole = generate(model, PROMPT, 6).sequences
        first = generate(model, PROMPT, 3)
        cache, turn = first.past_key_values, torch.cat([first.sequences, PROMPT], dim=1)
        refused = pytest.raises(UserError, match=r"one token at a time, in the LazyLLM context .* the whole prompt")
        with refused:
            generate(model, turn, 2, cache)
        assert torch.equal(generate(model, first.sequences, 3, cache).sequences, whole)  # a generation taken up again
        generate(model, PROMPT, 1)
        with refused:
            generate(model, first.sequences, 3, cache)
    for where, by in ((model, FIRST), (model, PRUNED), (other, FIRST)):
        with LazyLLM(where, by), refused:
            generate(where, first.sequences, 2, cache)
    with pytest.raises(UserError, match="only goes on inside that context"):
        generate(model, turn, 2, cache)


def test_a_cache_that_a_failed_pass_left_incomplete_is_refused():
    model = tiny_model("llama")
    with LazyLLM(model, PRUNED):
        first = generate(model, PROMPT, 4)
        failing = model.model.layers[2].mlp.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model, first.sequences, 2, first.past_key_values)
        failing.remove()
        with pytest.raises(UserError, match="one token at a time"):
            generate(model, first.sequences, 2, first.past_key_values)


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
