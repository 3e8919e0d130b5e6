"""FLOPs of a prefill, a probe and a mixture of experts are what torch counts."""

from __future__ import annotations

import pytest
import torch
from test_families_sweep import build
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from lazybench.methods.probe import probe_layers
from lazybench.models.flops import attention_width, full_prefill_flops, prefill_flops, projections_flops
from lazybench.pruning.layers import find_layers


def tiny(family: str, **fields: object) -> PretrainedConfig:
    shape = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return AutoConfig.for_model(family, **{**shape, **fields})


LATENT = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}


@pytest.mark.parametrize(
    "config",
    [
        tiny("llama"),
        tiny("llama", num_key_value_heads=4),
        tiny("phi", num_key_value_heads=4),
        tiny("falcon"),
        AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4),
        tiny("deepseek_v3", num_key_value_heads=4, first_k_dense_replace=2, **LATENT),
    ],
    ids=["llama-gqa", "llama", "phi", "falcon", "gpt2", "deepseek_v3"],
)
def test_torch_counts_the_same(config: PretrainedConfig) -> None:
    """Layer by layer, attention and MLP apart; torch counts full products where the causal half is counted here."""
    tokens = 20
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.arange(tokens)[None])
    _, layers = find_layers(model)
    prefix = next(f"{type(model).__name__}.{name}." for name, module in model.named_modules() if module is layers)
    totals = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    layer, mlp = totals[f"{prefix}0"], totals[f"{prefix}0.mlp"]
    half = 2 * attention_width(config) * tokens**2
    assert prefill_flops(config, [tokens]) == layer - half
    assert prefill_flops(config, [tokens], [0]) == layer - mlp - half
    assert prefill_flops(config, [tokens, tokens], [tokens, 5]) == 2 * (layer - half) - mlp * (tokens - 5) / tokens


@pytest.mark.parametrize(
    "family",
    ["mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "jetmoe", "dbrx", "aria_text", "llama4_text", "gemma4_text"],
)
def test_torch_counts_the_same_of_a_mixture(family: str) -> None:
    """Experts in one tensor, flat (DBRX) or in the attention too (JetMoE), shared ones, and Llama 4's, which all run.

    And of Gemma 4, whose layers differ.
    """
    tokens, model = 20, build(family).requires_grad_(False)
    model.set_experts_implementation("eager")
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(3, tokens + 3)[None])
    _, layers = find_layers(model)
    prefix = next(f"{type(model).__name__}.{name}." for name, module in model.named_modules() if module is layers)
    totals = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    half = 2 * attention_width(model.config) * tokens**2 * len(layers)
    assert full_prefill_flops(model.config, tokens) == sum(totals[f"{prefix}{i}"] for i in range(len(layers))) - half


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
    prefill_flops(tiny("llama", intermediate_size=56), [4])
    assert torch.equal(torch.get_rng_state(), before)
