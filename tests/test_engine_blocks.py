"""Long prompts that need a mask, or scores that SDPA can't make, are computed block by block: nothing of N x N."""

from __future__ import annotations

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning import attention

HALF = PruningSchedule((1, 2), (0.7, 0.5))
PROMPT = random_prompt(40, seed=3)
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
    prompts, mask = left_padded([PROMPT, random_prompt(33, seed=4)]) if padded else (PROMPT, None)
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
