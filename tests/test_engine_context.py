"""The LazyLLM context: nothing leaked, others left alone, whatever was wrapped put back; and ways to generate in it.

That leaving restores model and library bit for bit is shown on every family, in test_families.py.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, shared_model, tiny_model
from transformers import AutoModelForCausalLM

from lazybench import LazyLLM, PruningSchedule, UserError

HALF = PruningSchedule(layers=(0, 2), keep=(0.6, 0.5))
NOTHING_PRUNED = PruningSchedule(layers=(0, 2), keep=(1.0, 1.0))
PROMPT = random_prompt(12, seed=0)
GREEDY = {"max_new_tokens": 5, "do_sample": False}


def test_importing_changes_nothing():
    code = (
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as a\n"
        "from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as m\n"
        "before = sorted(a), sorted(m)\n"
        "import lazybench.pruning.engine\n"
        "assert (sorted(a), sorted(m)) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
    with LazyLLM(models[0], HALF):
        with pytest.raises(UserError, match="its own copy"):
            LazyLLM(models[1], HALF).__enter__()
        models[0].generate(PROMPT, **GREEDY)
    assert config._attn_implementation == "sdpa"
    with LazyLLM(models[1], HALF):
        models[1].generate(PROMPT, **GREEDY)
    assert config._attn_implementation == "sdpa"


def test_generate_is_put_back_whoever_wrapped_it_before():
    model = tiny_model("llama")
    with LazyLLM(model, HALF):
        assert "generate" in vars(model)
    assert "generate" not in vars(model)
    mine = model.generate
    model.generate = mine
    with LazyLLM(model, HALF):
        assert vars(model)["generate"] is not mine
    assert vars(model)["generate"] is mine


def test_sampling_repeats_with_its_seed_and_is_the_plain_models_where_nothing_is_pruned():
    model = shared_model("llama")

    def sample(seed: int, sequences: int = 3) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.generate(PROMPT, max_new_tokens=10, do_sample=True, num_return_sequences=sequences)

    with LazyLLM(model, HALF):
        first = sample(0)
        assert torch.equal(first, sample(0))
        assert not torch.equal(first, sample(1))
    with LazyLLM(model, NOTHING_PRUNED):
        kept = sample(0, 1)
    assert torch.equal(kept, sample(0, 1))


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
