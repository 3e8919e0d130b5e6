"""What the engine's buffers hold on to, and on which device they lie."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from tiny_models import random_prompt, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.cache import LazyCache

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
PROMPT = random_prompt(20, seed=3)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama")


def buffers_of(cache: LazyCache) -> list[Tensor]:
    """Every tensor that the cache keeps from one step to the next."""
    held, seen, tensors = [cache.__dict__], set(), []
    while held:
        item = held.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, dict):
            held.extend(item.values())
        elif isinstance(item, list | tuple):
            held.extend(item)
        elif type(item).__module__.startswith("lazybench"):
            held.append(item.__dict__)
    return tensors


def decode(model: PreTrainedModel, mode: Callable[[int], AbstractContextManager]) -> tuple[Tensor, LazyCache]:
    """Greedy steps by hand, step ``i`` under ``mode(i)``: (steps, vocabulary) logits and the cache."""
    cache, tokens, rows = None, PROMPT, []
    for step in range(8):
        with mode(step):
            output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = output.past_key_values, output.logits[0, -1].detach().clone()
        tokens = logits.argmax()[None, None]
        rows.append(logits)
    return torch.stack(rows), cache


def test_steps_outside_no_grad_leave_no_graph_behind(model):
    with LazyLLM(model, PRUNED):
        expected, _ = decode(model, lambda step: torch.no_grad())
        measured, cache = decode(model, lambda step: torch.enable_grad())
    torch.testing.assert_close(measured, expected)
    buffers = buffers_of(cache)
    assert len(buffers) > 8
    assert not any(buffer.requires_grad or buffer.grad_fn is not None for buffer in buffers)


@pytest.mark.parametrize(
    "modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode, torch.enable_grad)]
)
def test_steps_may_change_between_inference_mode_and_others(model, modes):
    with LazyLLM(model, PRUNED):
        expected, _ = decode(model, lambda step: torch.no_grad())
        measured, cache = decode(model, lambda step: modes[step % len(modes)]())
    torch.testing.assert_close(measured, expected)
    assert not any(buffer.is_inference() for buffer in buffers_of(cache))


def test_beams_kept_in_inference_mode_go_on_outside_it(model):
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 4, "return_dict_in_generate": True}
    with LazyLLM(model, PRUNED):
        with torch.inference_mode():
            first = model.generate(PROMPT, **beams)
        assert not any(buffer.is_inference() for buffer in buffers_of(first.past_key_values))
