"""FLOPs of a prefill, a probe and a mixture of experts are what torch counts."""

from __future__ import annotations

import pytest
import torch
from test_families_sweep import build
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from lazybench.methods.running import probe_layers
from lazybench.models.flops import attention_width, full_prefill_flops, prefill_flops, projections_flops
from lazybench.pruning.layers import find_layers

PLAIN = ["llama", "phi", "falcon", "gpt2"]


@pytest.mark.parametrize(
    "family",
    [
        *PLAIN,
        *(
            "mixtral",
            "qwen2_moe",
            "gpt_oss",
            "deepseek_v3",
            "jetmoe",
            "dbrx",
            "aria_text",
            "llama4_text",
            "gemma4_text",
        ),
    ],
)
def test_torch_counts_the_same(family: str) -> None:
    """Experts in one tensor, flat (DBRX) or in the attention too (JetMoE), shared ones, and Llama 4's, which all run.

    And of Gemma 4, whose layers differ. Torch counts full products where the causal half is counted here.
    """
    tokens, model = 20, build(family).requires_grad_(False)
    model.set_experts_implementation("eager")
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(3, tokens + 3)[None])
    config, (_, layers) = model.config, find_layers(model)
    prefix = next(f"{type(model).__name__}.{name}." for name, module in model.named_modules() if module is layers)
    totals = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    half = 2 * attention_width(config) * tokens**2
    assert full_prefill_flops(config, tokens) == sum(totals[f"{prefix}{i}"] - half for i in range(len(layers)))
    if family in PLAIN:  # attention and MLP apart
        layer, mlp = totals[f"{prefix}0"], totals[f"{prefix}0.mlp"]
        assert prefill_flops(config, [tokens], [0]) == layer - mlp - half
        assert prefill_flops(config, [tokens, tokens], [tokens, 5]) == 2 * (layer - half) - mlp * (tokens - 5) / tokens


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2", "mixtral", "deepseek_v2", "jetmoe"])
def test_torch_counts_the_same_of_a_probe(family: str) -> None:
    """A first layer that ends with its queries, keys and values, and the row that the last query is scored by."""
    tokens, model = 20, build(family).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        _, rows = probe_layers(model, torch.arange(3, tokens + 3)[None], [0])
    assert counter.get_total_flops() == projections_flops(model.config, tokens) + rows


def test_counting_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    prefill_flops(LlamaConfig(hidden_size=56, num_attention_heads=4), [4])
    assert torch.equal(torch.get_rng_state(), before)
