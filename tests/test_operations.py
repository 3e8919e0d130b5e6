"""How much work a forward pass launches and how often it waits for the device: today's counts are the ceilings.

On a GPU a decoding step at batch 1 lasts as long as the host takes to launch it, so these counts are its speed. Whoever
makes the engine launch less lowers the ceilings here.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from operations import Operations, count_operations, operations_of
from tiny_models import left_padded, random_prompt, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule

PROMPT = random_prompt(64, seed=0)
ALIKE = torch.cat([random_prompt(64, seed) for seed in range(3)])
PAPER = PruningSchedule.paper(32)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama", num_hidden_layers=32, hidden_size=64, intermediate_size=128)


def passes(
    model: PreTrainedModel, schedule: PruningSchedule | None, prompt: Tensor, mask: Tensor | None = None
) -> tuple[Operations, list[Operations]]:
    """The prefill's operations and those of each of seven decoding steps; no schedule: the plain model."""

    def generate() -> None:
        with LazyLLM(model, schedule) if schedule else nullcontext():
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt) if mask is None else mask,
                max_new_tokens=8,
                do_sample=False,
            )

    prefill, *steps = operations_of(model, generate)
    assert len(steps) == 7
    return prefill, steps


@pytest.fixture(scope="module")
def plain(model) -> Operations:
    """The plain model's decoding step; its prefill launches as much."""
    prefill, steps = passes(model, None, PROMPT)
    assert all(step == prefill for step in steps)
    assert prefill.waits == prefill.copies == 0
    assert prefill.launched > 1_000
    return prefill


@pytest.mark.parametrize(
    ("schedule", "prefill_ratio", "step_ratio", "waits"),
    [
        (PruningSchedule.paper(32, (1.0, 1.0, 1.0)), 1.004, 1.004, 0),
        (PruningSchedule(PAPER.layers, PAPER.keep, revive=False), 1.075, 1.016, 0),
        (PAPER, 1.075, 1.25, 3),  # one wait at each pruning layer: how many tokens it revives
        (PruningSchedule(kind="linear").build(32), 1.47, 2.2, 20),
    ],
    ids=["nothing pruned", "never revived", "paper", "linear"],
)
def test_one_prompt(model, plain, schedule, prefill_ratio, step_ratio, waits):
    prefill, steps = passes(model, schedule, PROMPT)
    assert prefill.launched <= prefill_ratio * plain.launched
    assert prefill.waits == prefill.copies == 0
    for step in steps:
        assert step.launched <= step_ratio * plain.launched
        assert step.waits <= waits
        assert step.copies == 0


def test_prompts_of_one_length(model):
    plain, _ = passes(model, None, ALIKE)
    prefill, steps = passes(model, PAPER, ALIKE)
    assert prefill.launched <= 1.16 * plain.launched
    assert prefill.waits == prefill.copies == 0
    for step in steps:
        assert step.launched <= 1.37 * plain.launched
        assert step.waits <= 3
        assert step.copies == 0


def test_a_padded_batch(model):
    prompts, mask = left_padded([random_prompt(tokens, seed=tokens) for tokens in (64, 57, 40)])
    plain, plain_steps = passes(model, None, prompts, mask)  # its masks cost it two waits and one a step
    prefill, steps = passes(model, PAPER, prompts, mask)
    assert prefill.launched <= 1.08 * plain.launched
    assert prefill.waits <= 3
    assert prefill.copies <= 3
    for step, plain_step in zip(steps, plain_steps, strict=True):
        assert step.launched <= 1.31 * plain_step.launched
        assert step.waits <= 3
        assert step.copies <= 3


def test_the_counter_sees_what_a_gpu_would_wait_for():
    tensor = torch.arange(6)
    for work, expected in (
        (lambda: tensor.view(2, 3)[0].unsqueeze(0).expand(4, -1).detach(), Operations()),
        (lambda: tensor + 1, Operations(launched=1)),
        (lambda: tensor.tolist(), Operations(waits=1)),
        (lambda: tensor[0].item(), Operations(waits=1)),
        (lambda: bool(tensor.all()), Operations(launched=1, waits=1)),
        (lambda: tensor[tensor > 2], Operations(launched=2, waits=1)),
        (lambda: tensor.nonzero(), Operations(launched=1, waits=1)),
        (lambda: torch.tensor([1, 2]), Operations(copies=1)),
    ):
        with count_operations() as counts:
            work()
        assert counts == expected
