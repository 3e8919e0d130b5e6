"""A model whose layers lie on several devices, as ``device_map`` spreads them: the same tokens under LazyLLM."""

from __future__ import annotations

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from transformers import AutoModelForCausalLM

from lazybench import LazyLLM, PruningSchedule

PROMPT = random_prompt(30, seed=8)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("padded", [False, True], ids=["one prompt", "padded batch"])
def test_layers_kept_on_disk_give_what_layers_in_memory_give(family, padded, tmp_path):
    whole = tiny_model(family)
    whole.save_pretrained(tmp_path / "model")
    layer_names = [name for name, module in whole.named_modules() if name.endswith((".0", ".1", ".2", ".3"))]
    places = {name: "disk" if name.endswith((".1", ".2")) else "cpu" for name in layer_names}
    stem = layer_names[0].removesuffix(".0")
    for name, _ in whole.named_parameters(remove_duplicate=False):
        if not name.startswith(f"{stem}."):
            places[name.rsplit(".", 1)[0]] = "cpu"
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model",
        device_map=places,
        offload_folder=tmp_path / "offload",
        dtype=torch.float32,
        attn_implementation=whole.config._attn_implementation,
    ).eval()
    assert any(weight.device.type == "meta" for weight in spread.parameters())
    prompts, mask = left_padded([PROMPT, random_prompt(24, seed=9)]) if padded else (PROMPT, None)
    for schedule in (PruningSchedule((0, 2), (0.6, 0.5)), PruningSchedule((), ())):
        with LazyLLM(whole, schedule):
            expected = generate_logits(whole, prompts, 5, attention_mask=mask)[1]
        with LazyLLM(spread, schedule):
            measured = generate_logits(spread, prompts, 5, attention_mask=mask)[1]
        torch.testing.assert_close(measured, expected)
