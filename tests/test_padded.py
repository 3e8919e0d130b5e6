"""Steps of fixed shapes: the same tokens revived, the same logits, and no wait for the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from operations import operations_of
from tiny_models import generate_logits, left_padded, random_prompt, shared_model, tiny_model
from torch import Tensor

from lazybench.pruning.budgets import FallingRatio, Mass, Ratio, Tokens
from lazybench.pruning.engine import Pruned
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.revival import Revival
from lazybench.pruning.trace import Trace

CAPPED = Policy(At((0, 1, 2)), budget=(Ratio(0.7), Ratio(0.6), Ratio(0.7)), revival=Revival(most=2, attend="computed"))
PROMPT = random_prompt(30, seed=3)


def padded(policy: Policy) -> Policy:
    return replace(policy, revival=replace(policy.revival, padded=True))


def run(family: str, policy: Policy, prompt: Tensor = PROMPT, **options: Any) -> tuple[Tensor, Tensor, Trace]:
    with Pruned(shared_model(family), policy) as pruned:
        return *generate_logits(shared_model(family), prompt, 10, **options), pruned.trace


def check_equal(family: str, policy: Policy, prompt: Tensor = PROMPT, **options: Any) -> Trace:
    expected, measured = run(family, policy, prompt, **options), run(family, padded(policy), prompt, **options)
    assert torch.equal(measured[0], expected[0])
    torch.testing.assert_close(measured[1], expected[1], atol=1e-5, rtol=1e-4)
    assert measured[2].steps == expected[2].steps
    assert measured[2].aux_bytes == expected[2].aux_bytes
    assert measured[2].prompt_tokens_computed == expected[2].prompt_tokens_computed
    revived = [count for step in measured[2].steps for count in step.revived[1:]]
    assert any(revived)
    return measured[2]


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss", "bloom", "falcon_alibi", "gpt2"])
@pytest.mark.parametrize("together", [False, True], ids=["one prompt", "padded batch"])
def test_equals_the_steps_without_fillers(family, together):
    trace = check_equal(family, CAPPED)
    assert any(0 in step.revived[1:] for step in trace.steps[1:])  # there were fillers
    if together:
        prompts, mask = left_padded([PROMPT, random_prompt(21, seed=4), random_prompt(11, seed=5)])
        check_equal(family, CAPPED, prompts, attention_mask=mask)


@pytest.mark.parametrize(
    "changed",
    [
        {"revival": Revival(4, "computed", every=2)},
        {"revival": Revival(4, "computed", memory=0.7)},
        {"budget": Ratio(0.4, of="context")},
        {"budget": Tokens(9)},
        {"budget": FallingRatio(0.5, 1, 4, least=2)},
        {"budget": Mass(0.6)},
        {"chunk": 3},
        {"look_back": 2},
        {"generated": "kept"},
        {"first": 2, "last": 3},
    ],
    ids=str,
)
def test_equals_them_under_every_option(changed):
    check_equal("llama", replace(CAPPED, **changed))


def test_beams_and_conversations_equal_them():
    model, outputs = tiny_model("llama"), []
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 8, "num_return_sequences": 3}
    for policy in (CAPPED, padded(CAPPED)):
        with Pruned(model, policy) as pruned:
            found = model.generate(PROMPT, **beams)
            first = model.generate(PROMPT, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
            longer = torch.cat([first.sequences, random_prompt(9, seed=5)], dim=1)
            second = model.generate(longer, max_new_tokens=9, do_sample=False, past_key_values=first.past_key_values)
            outputs.append((found, second, pruned.trace.steps))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert outputs[0][2] == outputs[1][2]


def test_a_long_generation_outgrows_its_tables():
    model, prompt, outputs = shared_model("llama"), random_prompt(5, seed=6), []
    for policy in (CAPPED, padded(CAPPED)):
        with Pruned(model, policy):
            outputs.append(generate_logits(model, prompt, 180))
    assert torch.equal(outputs[0][0], outputs[1][0])
    torch.testing.assert_close(outputs[0][1], outputs[1][1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("alike", [1, 3])
def test_a_step_never_waits_and_always_computes_as_many_rows(alike):
    model, rows = tiny_model("llama"), []
    prompts = torch.cat([random_prompt(30, seed) for seed in range(alike)])
    layers = model.model.layers
    hooks = [layer.register_forward_hook(lambda _, args, output: rows.append(args[0].shape[1])) for layer in layers]

    def generate() -> None:
        with Pruned(model, padded(CAPPED)):
            model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=6, do_sample=False)

    _, *steps = operations_of(model, generate)
    for hook in hooks:
        hook.remove()
    assert rows[len(layers) :] == [1, 3, 3, 3] * 5
    assert [(step.waits, step.copies) for step in steps] == [(0, 0)] * 5
    assert len({step.launched for step in steps[1:]}) == 1  # the first one also makes tables and room
