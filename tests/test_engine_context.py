"""The LazyLLM context: nothing leaked, others left alone, whatever was wrapped put back; and ways to generate in it.

That leaving restores model and library bit for bit is shown on every family, in test_families.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import python
from test_families import broken, layers_of
from tiny_models import generate_logits, left_padded, random_prompt, shared_model, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache, PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.pruning.trace import Trace

HALF = PruningSchedule(layers=(0, 2), keep=(0.6, 0.5))
NOTHING_PRUNED = PruningSchedule(layers=(0, 2), keep=(1.0, 1.0))
PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
PROMPT = random_prompt(20, seed=3)
GREEDY = {"max_new_tokens": 5, "do_sample": False}


def test_importing_changes_nothing():
    code = (
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as a\n"
        "from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as m\n"
        "before = sorted(a), sorted(m)\n"
        "import lazybench.pruning.engine\n"
        "assert (sorted(a), sorted(m)) == before\n"
    )
    assert python("-c", code).returncode == 0


def test_two_models_may_run_side_by_side_and_one_model_in_one_context():
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    plain = model.generate(PROMPT, **GREEDY)
    with LazyLLM(other, HALF):
        alone = other.generate(PROMPT, **GREEDY)
    with LazyLLM(other, HALF):
        for _ in range(2):  # the same context may be entered again, once left
            with LazyLLM(model, HALF) as lazy:
                for again in (lazy, LazyLLM(model, HALF)):
                    with pytest.raises(UserError, match="under LazyLLM already"):
                        again.__enter__()
                model.generate(PROMPT, **GREEDY)
            with lazy:
                model.generate(PROMPT, **GREEDY)
        assert torch.equal(other.generate(PROMPT, **GREEDY), alone)
    assert torch.equal(model.generate(PROMPT, **GREEDY), plain)


def test_two_models_of_one_config_may_not_both_run():
    config = tiny_model("llama").config
    models = [AutoModelForCausalLM.from_config(config).eval() for _ in range(2)]
    for model, other in (models, models[::-1]):
        with LazyLLM(model, HALF):
            with pytest.raises(UserError, match="its own copy"):
                LazyLLM(other, HALF).__enter__()
            model.generate(PROMPT, **GREEDY)
        assert config._attn_implementation == "sdpa"


def test_generate_is_put_back_whoever_wrapped_it_before():
    model = tiny_model("llama")
    mine = model.generate
    model.generate = mine
    with LazyLLM(model, HALF):
        assert vars(model)["generate"] is not mine
    assert vars(model)["generate"] is mine


def test_a_long_generation_outgrows_its_buffers():
    model = shared_model("llama")
    prompt, new_tokens = random_prompt(8, seed=6), 90
    with LazyLLM(model, NOTHING_PRUNED):
        kept = generate_logits(model, prompt, new_tokens)[1]
    torch.testing.assert_close(kept, generate_logits(model, prompt, new_tokens)[1], atol=1e-4, rtol=1e-4)
    both, mask = left_padded([prompt, random_prompt(5, seed=7)])
    with LazyLLM(model, HALF):
        alone = generate_logits(model, prompt, 20)[1]
        together = generate_logits(model, both, new_tokens, attention_mask=mask)[1]
    torch.testing.assert_close(together[:20, 0], alone[:20, 0], atol=1e-4, rtol=1e-4)
    assert together.isfinite().all()


# ---- a cache that goes on, and one that is dropped in the middle of a call


def generate(model: PreTrainedModel, prompt: Tensor, new_tokens: int, cache: Cache | None = None) -> Any:
    """``model.generate``, greedy, with its cache in what it returns."""
    kwargs = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": new_tokens, "do_sample": False}
    return model.generate(prompt, past_key_values=cache, return_dict_in_generate=True, **kwargs)


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_a_cache_goes_on_one_token_at_a_time_where_it_began_alone(family):
    model, other = shared_model(family), tiny_model(family, seed=1)
    with LazyLLM(model, HALF):
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
        failed = generate(model, PROMPT, 3)
        hook = layers_of(model)[2].register_forward_hook(broken(after=0))
        with pytest.raises(RuntimeError, match="broke here"):
            generate(model, failed.sequences, 2, failed.past_key_values)
        hook.remove()
        with refused:  # the pass that failed left it incomplete
            generate(model, failed.sequences, 2, failed.past_key_values)
    for where, by in ((model, HALF), (model, PRUNED), (other, HALF)):
        with LazyLLM(where, by), refused:
            generate(where, first.sequences, 2, cache)
    with pytest.raises(UserError, match="only goes on inside that context"):
        generate(model, turn, 2, cache)


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
