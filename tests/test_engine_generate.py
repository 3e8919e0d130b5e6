"""Ways to generate inside the context that other tests leave out."""

from __future__ import annotations

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, shared_model

from lazybench import LazyLLM, PruningSchedule

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
NOTHING_PRUNED = PruningSchedule(layers=(0, 2), keep=(1.0, 1.0))
PROMPT = random_prompt(20, seed=3)


@pytest.fixture(scope="module")
def model():
    return shared_model("llama")


def test_sampling_repeats_with_its_seed_and_is_the_plain_models_where_nothing_is_pruned(model):
    def sample(seed: int, sequences: int = 3) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.generate(PROMPT, max_new_tokens=10, do_sample=True, num_return_sequences=sequences)

    with LazyLLM(model, PRUNED):
        first = sample(0)
        assert torch.equal(first, sample(0))
        assert not torch.equal(first, sample(1))
    with LazyLLM(model, NOTHING_PRUNED):
        kept = sample(0, 1)
    assert torch.equal(kept, sample(0, 1))


def test_a_long_generation_outgrows_its_buffers(model):
    prompt, new_tokens = random_prompt(8, seed=6), 90
    with LazyLLM(model, NOTHING_PRUNED):
        kept = generate_logits(model, prompt, new_tokens)[1]
    torch.testing.assert_close(kept, generate_logits(model, prompt, new_tokens)[1], atol=1e-4, rtol=1e-4)
    both, mask = left_padded([prompt, random_prompt(5, seed=7)])
    with LazyLLM(model, PRUNED):
        alone = generate_logits(model, prompt, 20)[1]
        together = generate_logits(model, both, new_tokens, attention_mask=mask)[1]
    torch.testing.assert_close(together[:20, 0], alone[:20, 0], atol=1e-4, rtol=1e-4)
    assert together.isfinite().all()
