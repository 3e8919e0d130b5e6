"""Ways to generate inside the context that other tests leave out, and what the trace says of one."""

from __future__ import annotations

from itertools import pairwise

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


def test_the_trace_adds_up(model):
    with LazyLLM(model, PRUNED) as lazy:
        model.generate(PROMPT, max_new_tokens=6, do_sample=False)
    trace = lazy.trace
    assert trace.stages == (range(1), range(1, 2), range(2, 3), range(3, 4))
    prefill, *decoding = trace.steps
    assert prefill.computed == prefill.selected == (20, 14, 9, 7)  # ceil of 0.7, 0.6 and 0.7 of what entered
    assert len(decoding) == 5
    for step in decoding:
        assert step.computed == tuple(1 + revived for revived in step.revived)
    shares = trace.prompt_tokens_computed
    assert shares[0] == (1.0, 0.7, 0.45, 0.35)
    assert all(after >= before for a, b in pairwise(shares) for before, after in zip(a, b, strict=True))
    assert all(1.0 >= early >= late for row in shares for early, late in pairwise(row))
    assert trace.prompt_tokens_computed_by_stage == shares[-1]
    assert trace.prompt_tokens_computed_mean == pytest.approx(sum(shares[-1]) / 4)


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
