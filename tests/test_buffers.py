"""How large the engine's buffers are, beside plain ``generate``'s; long prompts are computed block by block."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning import attention
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy

WINDOW = 32
PROMPT = random_prompt(200, seed=1)
PRUNED = Policy((1,), budget=(Ratio(0.4),))  # never revives
POLICIES = pytest.mark.parametrize("policy", [Policy(), PRUNED], ids=["nothing pruned", "pruned"])


def cache_after(model: PreTrainedModel, context: AbstractContextManager, new_tokens: int) -> Any:
    with context:
        output = model.generate(
            PROMPT,
            attention_mask=torch.ones_like(PROMPT),
            max_new_tokens=new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
        )
    return output.past_key_values


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("new_tokens", [1, 40])
@POLICIES
def test_a_layer_with_a_window_holds_no_more_than_it_where_nothing_comes_back(family, new_tokens, policy):
    model = tiny_model(family, sliding_window=WINDOW, max_position_embeddings=512)
    plain = [layer.keys.shape[2] for layer in cache_after(model, nullcontext(), new_tokens).layers]
    cache = cache_after(model, Pruned(model, policy), new_tokens)
    windowed = [rows == WINDOW - 1 for rows in plain]
    assert any(windowed)
    for layer, rows in enumerate(plain):
        arena = cache.arena(layer)
        held = cache._stage_of_layer[layer].end - arena.forgotten
        assert held <= (rows * 9 // 8 if windowed[layer] else rows)
        assert arena._buffers[0].shape[4] <= held + held // 8 + 17 if arena.forgotten else rows + rows // 8 + 17
    row_bytes = cache.arena(0).bytes_per_slot
    assert cache.kv_bytes <= sum(rows + rows // 8 for rows in plain) * row_bytes


# ---- blocks: prompts that need a mask, or scores that SDPA can't make, make nothing of N x N


HALF = PruningSchedule((1, 2), (0.7, 0.5))
NEEDS = {
    "sliding window": "mistral",
    "some layers with a window": "gemma3_text",
    "softcap": "gemma2",
    "sinks": "gpt_oss",
}


class Largest(TorchDispatchMode):
    """Notes the most elements that any tensor of two last dimensions over ``least`` had."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.square = least, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for value in output if isinstance(output, tuple | list) else [output]:
            if isinstance(value, torch.Tensor) and value.dim() > 1 and min(value.shape[-2:]) >= self.least:
                self.square.append((str(function), tuple(value.shape)))
        return output


@pytest.mark.parametrize("family", NEEDS.values(), ids=NEEDS.keys())
@pytest.mark.parametrize("padded", [False, True], ids=["one prompt", "padded batch"])
def test_the_size_of_the_blocks_changes_nothing(family, padded, monkeypatch):
    model = tiny_model(family)
    prompts, mask = left_padded([PROMPT[:, :40], random_prompt(33, seed=4)]) if padded else (PROMPT[:, :40], None)
    with LazyLLM(model, HALF):
        whole = generate_logits(model, prompts, 4, attention_mask=mask)[1]
    monkeypatch.setattr(attention, "_MASK_BLOCK", 7)
    monkeypatch.setattr(attention, "_SCORE_BLOCK", 7)
    with LazyLLM(model, HALF):
        blocks = generate_logits(model, prompts, 4, attention_mask=mask)[1]
    torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", *NEEDS.values()])
def test_no_tensor_of_prompt_by_prompt_is_made(family, monkeypatch):
    monkeypatch.setattr(attention, "_MASK_BLOCK", 16)
    monkeypatch.setattr(attention, "_SCORE_BLOCK", 16)
    model = tiny_model(family)
    prompts, mask = left_padded([random_prompt(200, seed=5), random_prompt(190, seed=6)])
    # weights and activations have a last dimension of at most 128
    with Largest(least=150) as seen, LazyLLM(model, HALF):
        generate_logits(model, prompts, 2, attention_mask=mask)
    assert not seen.square
