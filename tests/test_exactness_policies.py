"""Prefill and decoding under any policy equal the slow reference, for models, prompts and policies drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from drawn_policies import pruned_once, pruned_where_ranks_settle, revived
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference import Reference
from test_exactness import KINDS, NUM_LAYERS, counts_by_stage, exact_model, replay
from tiny_models import generate_logits, random_prompt

from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import At, Policy
from lazybench.pruning.scorers import OutputNorm

NEW_TOKENS = 6
drawn = settings(
    max_examples=90, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def check_equal(kind: str, policy: Policy, prompt_tokens: int, seed: int) -> Reference:
    """Logits and counts of one generation."""
    model, prompt = exact_model(kind, 0), random_prompt(prompt_tokens, seed)
    with Pruned(model, policy) as run:
        tokens, logits = generate_logits(model, prompt, NEW_TOKENS)
    reference = Reference(model, policy)
    expected = replay(reference, prompt[0].tolist(), tokens[0, prompt_tokens:].tolist())
    assume(reference.margin > 1e-6)  # two tokens tie: either may be kept
    torch.testing.assert_close(logits[:, 0], expected, rtol=0, atol=1e-9)
    stages = run.trace.stages
    with_layers = [number for number, stage in enumerate(stages) if len(stage)]  # before layer 0 there are none
    noted = [
        tuple([counts[number] for number in with_layers] for counts in (step.computed, step.selected, step.revived))
        for step in run.trace.steps
    ]
    assert noted == counts_by_stage(reference, tuple(stages[number] for number in with_layers))
    return reference


def drawn_cases(policies: Callable[[int, int], st.SearchStrategy[Policy]]) -> Any:
    """The kind of model, a policy for a prompt of so many tokens, and a seed for it."""
    sizes = st.sampled_from([1, 2, 5, 9, 13, 17, 21])
    prompts = sizes.flatmap(lambda tokens: st.tuples(st.just(tokens), policies(tokens, NUM_LAYERS)))
    return given(kind=st.sampled_from(sorted(KINDS)), prompt=prompts, seed=st.integers(0, 10_000))


def prunes(reference: Reference) -> bool:
    return any(len(layer) < len(reference.computed[0][0]) for layer in reference.computed[0])


def test_policies_that_choose_in_the_prefill_alone():
    reached = []

    @drawn
    @drawn_cases(pruned_once)
    def check(kind, prompt, seed):
        reference = check_equal(kind, prompt[1], prompt[0], seed)
        reached.append((prunes(reference), any(heads[0] for heads in reference.layers.evicted)))

    check()
    assert sum(pruned for pruned, _ in reached) >= 15
    assert sum(evicted for _, evicted in reached) >= 8


def test_policies_that_prune_where_ranks_settle():
    reached = []

    @drawn
    @drawn_cases(pruned_where_ranks_settle)
    def check(kind, prompt, seed):
        reached.append(prunes(check_equal(kind, prompt[1], prompt[0], seed)))

    check()
    assert sum(reached) >= 8


def test_policies_that_revive():
    reached = []

    @drawn
    @drawn_cases(revived)
    def check(kind, prompt, seed):
        reference = check_equal(kind, prompt[1], prompt[0], seed)
        reached.append(any(len(layer) > 1 for step in reference.computed[1:] for layer in step))

    check()
    assert sum(reached) >= 15


def test_policies_that_choose_by_what_attention_changes():
    reached = []

    def by_output(tokens: int, layers: int) -> st.SearchStrategy[Policy]:
        return pruned_once(tokens, layers).map(
            lambda policy: replace(policy, scorer=OutputNorm(), placement=At((1, 2)), budget=(Ratio(0.6), Ratio(0.5)))
        )

    @settings(drawn, max_examples=30)
    @drawn_cases(by_output)
    def check(kind, prompt, seed):
        reached.append(prunes(check_equal(kind, prompt[1], prompt[0], seed)))

    check()
    assert sum(reached) >= 8
