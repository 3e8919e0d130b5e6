"""Pruned prefill and decoding equal the slow reference, for models, prompts and schedules drawn at random."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference import Reference
from tiny_models import float64_model, generate_logits, random_prompt, tiny_model
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.budgets import NEVER, Mass, Ratio, Revival
from lazybench.pruning.policy import At, Policy

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "one key head per query head": ("llama", {"num_key_value_heads": 4}),
    "grouped queries": ("llama", {}),
    "one key head, biases": ("llama", {"num_key_value_heads": 1, "attention_bias": True}),
    "sliding window in every layer": ("mistral", {}),
    "sliding window in two layers, biases": ("qwen2", {}),
    "sliding window in every other layer": ("qwen2", {"layer_types": ["sliding_attention", "full_attention"] * 2}),
    "norms of queries and keys": ("qwen3", {}),
}
NUM_LAYERS = 4


@cache
def exact_model(kind: str, seed: int) -> PreTrainedModel:
    family, overrides = KINDS[kind]
    return float64_model(family, seed, **overrides)


@st.composite
def schedules(draw: st.DrawFn) -> PruningSchedule:
    layers = tuple(sorted(draw(st.sets(st.integers(0, NUM_LAYERS - 2), min_size=1, max_size=3))))
    percents = [draw(st.sampled_from([10, 30, 50, 60, 70, 90, 100])) for _ in layers]
    return PruningSchedule(
        layers,
        tuple(percent / 100 for percent in percents),
        ratio_of=draw(st.sampled_from(["entered", "context", "mass"])),
        revive=draw(st.sampled_from([True, True, True, False])),
    )


def reference_for(model: PreTrainedModel, schedule: PruningSchedule) -> Reference:
    """The schedule in a policy's words, written out here: the engine's own translation is under test."""
    by_mass = schedule.ratio_of == "mass"
    budget = tuple(Mass(share) if by_mass else Ratio(share, schedule.ratio_of) for share in schedule.keep)
    revival = Revival() if schedule.revive else NEVER
    return Reference(model, Policy(At(schedule.layers), budget=budget, revival=revival))


def replay(reference: Reference, prompt: list[int], generated: list[int]) -> torch.Tensor:
    """(steps, vocabulary) the reference's logits at each step, given what was generated."""
    return torch.stack([reference.prefill(prompt), *(reference.decode(token) for token in generated[:-1])])


def counts_by_stage(reference: Reference, stages: tuple[range, ...]) -> list[tuple[list[int], ...]]:
    """Per step: tokens computed, selected and revived in each stage."""
    counts, before = [], 0
    for computed, selected in zip(reference.computed, reference.selected, strict=True):
        first_layers = [stage.start for stage in stages]
        counts.append(
            (
                [len(computed[layer]) for layer in first_layers],
                [len(selected[layer]) for layer in first_layers],
                [sum(token < before for token in computed[layer]) for layer in first_layers],
            )
        )
        before = selected[0][-1] + 1
    return counts


def check_equal(
    model: PreTrainedModel, exact: PreTrainedModel, schedule: PruningSchedule, prompt_seed: int, **sizes: Any
):
    """Logits and counts of one generation; returns how many tokens were revived in it."""
    prompt = random_prompt(sizes["prompt_tokens"], prompt_seed)
    with LazyLLM(model, schedule) as lazy:
        tokens, logits = generate_logits(model, prompt, sizes["new_tokens"])
    reference = reference_for(exact, schedule)
    expected = replay(reference, prompt[0].tolist(), tokens[0, prompt.shape[1] :].tolist())
    assume(reference.margin > sizes["margin"])  # two tokens tie: either may be kept
    torch.testing.assert_close(logits[:, 0].double(), expected.double(), rtol=0, atol=sizes["tolerance"])
    counts = counts_by_stage(reference, lazy.trace.stages)
    noted = [([*step.computed], [*step.selected], [*step.revived]) for step in lazy.trace.steps]
    assert noted == counts
    return sum(sum(revived) for _, _, revived in counts)


def test_pruned_generation_equals_the_reference_in_float64():
    revived: list[int] = []

    @settings(max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(
        kind=st.sampled_from(sorted(KINDS)),
        model_seed=st.integers(0, 2),
        prompt_seed=st.integers(0, 10_000),
        prompt_tokens=st.sampled_from([1, 2, 5, 9, 13, 17, 21, 24]),
        schedule=schedules(),
    )
    def check(kind, model_seed, prompt_seed, prompt_tokens, schedule):
        model = exact_model(kind, model_seed)
        sizes = {"prompt_tokens": prompt_tokens, "new_tokens": 6, "margin": 1e-6, "tolerance": 1e-9}
        revived.append(check_equal(model, model, schedule, prompt_seed, **sizes))

    check()
    assert sum(count > 0 for count in revived) >= 20  # revival is what the drawn cases must reach


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_generation_equals_the_reference_in_float32(kind):
    family, overrides = KINDS[kind]
    schedule = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.6))
    sizes = {"prompt_tokens": 30, "new_tokens": 8, "margin": 0.0, "tolerance": 1e-4}
    assert check_equal(tiny_model(family, **overrides), exact_model(kind, 0), schedule, 1, **sizes) > 0


def test_gemma_4_under_the_papers_schedule_equals_the_reference():
    """Its layers' keys differ in size, and so do their rotary embeddings; tokens come back in all of them."""
    schedule = PruningSchedule.paper(NUM_LAYERS, keep=(0.7, 0.7, 0.6))
    model = tiny_model("gemma4_text")
    sizes = {"prompt_tokens": 30, "new_tokens": 8, "margin": 0.0, "tolerance": 1e-4}
    assert check_equal(model, model, schedule, 1, **sizes) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_without_pruning_is_the_plain_model(kind):
    model, prompt = exact_model(kind, 0), random_prompt(15, 0)
    tokens, logits = generate_logits(model, prompt, 4)
    expected = replay(Reference(model, Policy.nothing_pruned()), prompt[0].tolist(), tokens[0, 15:].tolist())
    torch.testing.assert_close(logits[:, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["grouped queries", "sliding window in two layers, biases"])
def test_the_reference_computes_no_token_twice_and_nests_its_selections(kind):
    reference = Reference(exact_model(kind, 0), Policy(At((0, 2)), budget=Ratio(0.5), revival=Revival()))
    replay(reference, random_prompt(20, 3)[0].tolist(), [5, 6, 7, 8, 9, 10])
    for layer in range(NUM_LAYERS):
        computed = [token for step in reference.computed for token in step[layer]]
        assert len(computed) == len(set(computed))
    for step in reference.selected:
        assert all(set(later) <= set(earlier) for earlier, later in pairwise(step))
