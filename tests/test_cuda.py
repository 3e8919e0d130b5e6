"""What only a GPU can show: its kernels against the CPU's float64, a captured step, several devices, no waits.

``python -m pytest -m cuda`` on a machine with one. Without one all of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from accelerate import dispatch_model
from test_exactness import exact_model, reference_for, replay
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from torch import Tensor

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.budgets import Ratio, Revival
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]

SCHEDULE = PruningSchedule((0, 1, 2), (0.7, 0.6, 0.7))
CAPPED = Policy(
    (0, 1, 2),
    budget=(Ratio(0.7), Ratio(0.6), Ratio(0.7)),
    revival=Revival(most=2, attend="computed", every=4),
)
PROMPT = random_prompt(40, seed=3)


@contextmanager
def no_waits() -> Iterator[None]:
    """Any wait of the host for the device is an error inside."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["grouped queries", "sliding window in every layer"])
def test_float64_on_the_gpu_equals_the_reference_on_the_cpu(kind):
    on_cpu = exact_model(kind, 0)
    model = deepcopy(on_cpu).cuda()
    rotary = model.model.rotary_emb
    rotary.frequencies = rotary.frequencies.cuda()
    with LazyLLM(model, SCHEDULE) as lazy:
        tokens, logits = generate_logits(model, PROMPT.cuda(), 8)
    expected = replay(reference_for(on_cpu, SCHEDULE), PROMPT[0].tolist(), tokens[0, 40:].tolist())
    torch.testing.assert_close(logits[:, 0].cpu(), expected, rtol=0, atol=1e-9)
    assert any(sum(step.revived) for step in lazy.trace.steps)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gemma2", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("policy", [SCHEDULE.policy(), CAPPED], ids=["paper", "capped"])
def test_float32_on_the_gpu_equals_the_cpu(family, policy):
    prompts, mask = left_padded([PROMPT, random_prompt(23, seed=4)])
    results = []
    for device in ("cpu", "cuda"):
        model = tiny_model(family).to(device)
        with Pruned(model, policy):
            one = generate_logits(model, PROMPT.to(device), 6)[1]
            both = generate_logits(model, prompts.to(device), 6, attention_mask=mask.to(device))[1]
        results.append((one.cpu(), both.cpu()))
    for measured, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(measured, expected, atol=1e-3, rtol=1e-3)


def step_after(model: torch.nn.Module, prefill: Tensor, steps: int) -> tuple[Tensor, object]:
    """The next token, (1, 1), and the cache, after a prefill and some steps."""
    tokens, cache = prefill, None
    for _ in range(steps + 1):
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, tokens = output.past_key_values, output.logits[:, -1:].argmax(-1)
    return tokens, cache


@torch.no_grad()
def test_a_step_between_bursts_waits_for_nothing():
    model = tiny_model("llama").cuda()
    with Pruned(model, CAPPED):
        token, cache = step_after(model, PROMPT.cuda(), 1)
        with no_waits():
            model(token, past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("second", ["cpu", "cuda:1"])
@pytest.mark.parametrize("policy", [SCHEDULE.policy(), CAPPED], ids=["paper", "capped"])
def test_layers_on_several_devices_give_what_one_device_gives(second, policy):
    if second == "cuda:1" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU here")
    alone = tiny_model("llama").cuda()
    with Pruned(alone, policy):
        expected = generate_logits(alone, PROMPT.cuda(), 6)[1]
    spread = tiny_model("llama")
    places = {f"model.layers.{layer}": "cuda:0" if layer < 2 else second for layer in range(4)}
    places |= {"model.embed_tokens": "cuda:0", "model.rotary_emb": "cuda:0", "model.norm": second, "lm_head": second}
    spread = dispatch_model(spread, device_map=places, main_device="cuda:0")
    with Pruned(spread, policy):
        measured = generate_logits(spread, PROMPT.cuda(), 6)[1]
    torch.testing.assert_close(measured.cpu(), expected.cpu(), atol=1e-3, rtol=1e-3)


def test_half_precision_on_the_gpu_prunes_as_many_tokens():
    for dtype in (torch.bfloat16, torch.float16):
        model = tiny_model("llama", dtype=dtype).cuda()
        with LazyLLM(model, SCHEDULE) as lazy:
            logits = generate_logits(model, PROMPT.cuda(), 6)[1]
        assert logits.isfinite().all()
        assert lazy.trace.steps[0].computed == (40, 28, 17, 12)
