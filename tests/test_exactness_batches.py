"""Under any policy a prompt generates in a padded batch what it does alone; what a policy can't serve is refused."""

from __future__ import annotations

import pytest
import torch
from drawn_policies import pruned_once, revived
from hypothesis import assume, example, given
from hypothesis import strategies as st
from reference import Reference
from test_exactness import KINDS, NUM_LAYERS, drawn, exact_model, replay
from tiny_models import generate_logits, left_padded, random_prompt

from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.pruning.budgets import Ratio, Tokens
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer, Given, OutputNorm

NEW_TOKENS = 5
LENGTHS = (4, 16, 11)
NORMS = Policy((0, 2), OutputNorm(), (Ratio(0.4), Ratio(0.6)), before_mlp=True)  # seldom drawn
policies = st.one_of(pruned_once(LENGTHS[1], NUM_LAYERS), revived(LENGTHS[1], NUM_LAYERS))


def serves_padded_batches(policy: Policy) -> bool:
    if isinstance(policy.scorer, Given):  # tested by itself: it goes by position, padding included
        return False
    return policy.retention is None


@drawn(30)
@given(kind=st.sampled_from(sorted(KINDS)), policy=policies.filter(serves_padded_batches), seed=st.integers(0, 999))
@example(kind="sliding window in every other layer", policy=NORMS, seed=0)
def test_a_prompt_in_a_padded_batch_generates_what_it_does_alone(kind, policy, seed):
    """Each row's logits, against the reference of its prompt alone."""
    model = exact_model(kind)
    prompts = [random_prompt(tokens, seed + number) for number, tokens in enumerate(LENGTHS)]
    padded, mask = left_padded(prompts)
    with Pruned(model, policy):
        together, logits = generate_logits(model, padded, NEW_TOKENS, attention_mask=mask)
    for row, prompt in enumerate(prompts):
        reference = Reference(model, policy)
        expected = replay(reference, prompt[0].tolist(), together[row, padded.shape[1] :].tolist())
        assume(reference.margin > 1e-6)
        torch.testing.assert_close(logits[:, row], expected, rtol=0, atol=1e-9)


def test_given_scores_of_a_padded_batch_go_by_position():
    model = exact_model("grouped queries")
    scores = torch.rand(3, max(LENGTHS), generator=torch.Generator().manual_seed(0)).double()
    prompts = [random_prompt(tokens, tokens) for tokens in LENGTHS]
    padded, mask = left_padded(prompts)
    fields = {"layers": (-1, 1), "budget": (Ratio(0.6), Ratio(0.5)), "first": 1}
    with Pruned(model, Policy(scorer=Given(scores), **fields)):
        _, together = generate_logits(model, padded, NEW_TOKENS, attention_mask=mask)
    for row, prompt in enumerate(prompts):
        own = scores[row : row + 1, max(LENGTHS) - prompt.shape[1] :]
        with Pruned(model, Policy(scorer=Given(own), **fields)):
            _, alone = generate_logits(model, prompt, NEW_TOKENS)
        torch.testing.assert_close(together[:, row], alone[:, 0], rtol=0, atol=1e-9)


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
