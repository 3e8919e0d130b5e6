"""Prefill and decoding equal the slow reference, for models, prompts, schedules and policies drawn at random; so does
each prompt of a padded batch, and what a policy can't serve in one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from drawn_policies import given_scores, pruned_once, pruned_where_ranks_settle, revived
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from reference import Reference
from tiny_models import float64_model, generate_logits, left_padded, random_prompt
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.pruning.budgets import NEVER, Mass, Ratio, Revival, Tokens
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer, Given, OutputNorm

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
NEW_TOKENS = 6
SIZES = (1, 2, 5, 9, 13, 17, 21, 24)


@cache
def exact_model(kind: str, seed: int = 0) -> PreTrainedModel:
    family, overrides = KINDS[kind]
    return float64_model(family, seed, **overrides)


def drawn(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def schedules(draw: st.DrawFn, prompt_tokens: int, layers: int) -> PruningSchedule:
    at = tuple(sorted(draw(st.sets(st.integers(0, layers - 2), min_size=1, max_size=3))))
    percents = [draw(st.sampled_from([10, 30, 50, 60, 70, 90, 100])) for _ in at]
    return PruningSchedule(
        at,
        tuple(percent / 100 for percent in percents),
        ratio_of=draw(st.sampled_from(["entered", "context", "mass"])),
        revive=draw(st.sampled_from([True, True, True, False])),
    )


def reference_for(model: PreTrainedModel, by: PruningSchedule | Policy) -> Reference:
    """A schedule stands here in a policy's words: the engine's own translation is under test."""
    if isinstance(by, Policy):
        return Reference(model, by)
    budget = tuple(Mass(share) if by.ratio_of == "mass" else Ratio(share, by.ratio_of) for share in by.keep)
    return Reference(model, Policy(by.layers, budget=budget, revival=Revival() if by.revive else NEVER))


def replay(reference: Reference, prompt: list[int], generated: list[int]) -> torch.Tensor:
    """(steps, vocabulary) the reference's logits at each step, given what was generated."""
    return torch.stack([reference.prefill(prompt), *(reference.decode(token) for token in generated[:-1])])


def check_equal(model: PreTrainedModel, by: PruningSchedule | Policy, prompt_tokens: int, seed: int) -> Reference:
    """Logits, counts and work of one generation."""
    prompt = random_prompt(prompt_tokens, seed)
    with LazyLLM(model, by) if isinstance(by, PruningSchedule) else Pruned(model, by) as run:
        tokens, logits = generate_logits(model, prompt, NEW_TOKENS)
    reference = reference_for(model, by)
    expected = replay(reference, prompt[0].tolist(), tokens[0, prompt_tokens:].tolist())
    assume(reference.margin > 1e-6)  # two tokens tie: either may be kept
    torch.testing.assert_close(logits[:, 0], expected, rtol=0, atol=1e-9)
    first_layers = [(number, stage.start) for number, stage in enumerate(run.trace.stages) if len(stage)]
    before = 0
    for step, computed, selected in zip(run.trace.steps, reference.computed, reference.selected, strict=True):
        for number, layer in first_layers:  # before layer 0 there is none
            revived = sum(token < before for token in computed[layer])
            counts = len(computed[layer]), len(selected[layer]), revived
            assert (step.computed[number], step.selected[number], step.revived[number]) == counts
        before = selected[0][-1] + 1
    ran = [{token for step in reference.computed for token in step[layer]} for layer in range(NUM_LAYERS)]
    of_prompt = [sum(token < prompt_tokens for token in tokens) / prompt_tokens for tokens in ran]
    assert run.trace.prompt_tokens_computed_mean == pytest.approx(sum(of_prompt) / NUM_LAYERS)
    by_stage = run.trace.prompt_tokens_computed_by_stage
    assert all(by_stage[number] == of_prompt[layer] for number, layer in first_layers)
    return reference


def prunes(reference: Reference) -> bool:
    return any(len(layer) < len(reference.computed[0][0]) for layer in reference.computed[0])


def evicts(reference: Reference) -> bool:
    return any(heads[0] for heads in reference.layers.evicted)


def revives(reference: Reference) -> bool:
    return any(len(layer) > 1 for step in reference.computed[1:] for layer in step)


@pytest.mark.parametrize(
    ("by", "sizes", "examples", "reached"),
    [
        (schedules, SIZES, 60, {revives: 20}),
        pytest.param(pruned_once, SIZES, 110, {prunes: 15, evicts: 8}, marks=pytest.mark.slow),
        # ranks of a few tokens tie
        pytest.param(pruned_where_ranks_settle, (14, 19, 24), 90, {prunes: 8}, marks=pytest.mark.slow),
        pytest.param(revived, SIZES, 90, {revives: 15}, marks=pytest.mark.slow),
    ],
    ids=["LazyLLM's schedules", "chosen in the prefill alone", "pruned where ranks settle", "revived"],
)
def test_pruned_generation_equals_the_reference_in_float64(
    by: Callable[..., st.SearchStrategy],
    sizes: tuple[int, ...],
    examples: int,
    reached: dict[Callable[[Reference], bool], int],
):
    """``reached``: how many of the drawn cases must have done so."""
    found: list[list[bool]] = []

    @drawn(examples)
    @given(
        kind=st.sampled_from(sorted(KINDS)),
        model_seed=st.integers(0, 2),
        prompt=st.sampled_from(sizes).flatmap(lambda tokens: st.tuples(st.just(tokens), by(tokens, NUM_LAYERS))),
        seed=st.integers(0, 10_000),
    )
    def check(kind, model_seed, prompt, seed):
        reference = check_equal(exact_model(kind, model_seed), prompt[1], prompt[0], seed)
        found.append([holds(reference) for holds in reached])

    check()
    counts = [sum(column) for column in zip(*found, strict=True)]
    assert all(count >= least for count, least in zip(counts, reached.values(), strict=True)), counts


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_plain_model(kind):
    model, prompt = exact_model(kind), random_prompt(15, 0)
    tokens, logits = generate_logits(model, prompt, 4)
    expected = replay(Reference(model, Policy()), prompt[0].tolist(), tokens[0, 15:].tolist())
    torch.testing.assert_close(logits[:, 0], expected, rtol=0, atol=1e-12)


LENGTHS = (3, 16, 11)
NORMS = Policy((0, 2), OutputNorm(), (Ratio(0.4), Ratio(0.6)), before_mlp=True)  # seldom drawn
SCORED = Policy((-1, 1), given_scores(LENGTHS[1], seed=0), (Ratio(0.6), Ratio(0.5)), first=1)
policies = st.one_of(pruned_once(LENGTHS[1], NUM_LAYERS), revived(LENGTHS[1], NUM_LAYERS))


@pytest.mark.slow
@drawn(30)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    policy=policies.filter(lambda policy: policy.retention is None),
    seed=st.integers(0, 999),
)
@example(kind="sliding window in every other layer", policy=NORMS, seed=0)
@example(kind="grouped queries", policy=SCORED, seed=0)
def test_a_prompt_in_a_padded_batch_generates_what_it_does_alone(kind, policy, seed):
    """Each row's logits, against the reference of its prompt alone."""
    model = exact_model(kind)
    prompts = [random_prompt(tokens, seed + number) for number, tokens in enumerate(LENGTHS)]
    padded, mask = left_padded(prompts)
    alone = [policy] * len(prompts)
    if isinstance(policy.scorer, Given):  # a row for each prompt, by position, padding included
        rows = torch.cat([policy.scorer.scores, policy.scorer.scores.flip(1), 1 - policy.scorer.scores])
        own = [rows[row : row + 1, max(LENGTHS) - tokens :] for row, tokens in enumerate(LENGTHS)]
        alone = [replace(policy, scorer=Given(scores)) for scores in own]
        policy = replace(policy, scorer=Given(rows))
    with Pruned(model, policy):
        together, logits = generate_logits(model, padded, NEW_TOKENS, attention_mask=mask)
    for row, prompt in enumerate(prompts):
        reference = Reference(model, alone[row])
        expected = replay(reference, prompt[0].tolist(), together[row, padded.shape[1] :].tolist())
        assume(reference.margin > 1e-6)
        torch.testing.assert_close(logits[:, row], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "policy",
    [
        Policy((0, 1, 2), budget=(Tokens(4),), settles=WhereRanksSettle(2, 2, 0.5)),
        Policy(retention=PerHead(AttentionScorer(), Tokens(4))),
    ],
    ids=["layers by prompt", "retention"],
)
def test_what_goes_by_each_prompts_length_is_refused_in_a_padded_batch(policy):
    padded, mask = left_padded([random_prompt(5, 0), random_prompt(9, 1)])
    model = exact_model("grouped queries", 0)
    with Pruned(model, policy), pytest.raises(UserError, match=r"^token pruning .* one prompt at a time"):
        generate_logits(model, padded, 2, attention_mask=mask)
    if policy.settles:
        with Pruned(model, policy), pytest.raises(UserError, match="one prompt at a time"):
            generate_logits(model, padded[1:], 2, num_beams=2)
