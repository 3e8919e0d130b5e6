"""How much faster the prefill could be at best: the FLOPs that a method saves.

Per layer and ``n`` tokens: ``c(n) = 2 P n + 2 d n^2``. ``P`` counts the weights that every token meets
(``4 d^2 + 3 d f`` in Llama 2), and ``2 d n^2`` is causal attention, half of two full products. The output
embedding runs for the last token alone and is left out, as are norms and activations.

Layers are taken as equal (their mean), and a sliding window as full attention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig


def prefill_flops(config: PretrainedConfig, tokens_per_layer: Sequence[int]) -> float:
    """FLOPs of a prefill in which layer ``l`` computes ``tokens_per_layer[l]`` tokens.

    A method that runs layers twice (a probe, then a rerun) lists them twice.
    """
    weights = _weights_per_token(config.to_json_string(use_diff=False))
    width = attention_width(config)
    return float(sum(2 * weights * n + 2 * width * n * n for n in tokens_per_layer))


def ideal_ttft_speedup(config: PretrainedConfig, prompt_tokens: int, tokens_per_layer: Sequence[int]) -> float:
    """The baseline's prefill FLOPs over those of ``tokens_per_layer`` (any number of layers run)."""
    layers = config.get_text_config().num_hidden_layers
    return prefill_flops(config, [prompt_tokens] * layers) / prefill_flops(config, tokens_per_layer)


def attention_share(config: PretrainedConfig, prompt_tokens: int) -> float:
    """Share of a full prefill's FLOPs that is attention between tokens, 0..1."""
    layers = config.get_text_config().num_hidden_layers
    attention = 2 * attention_width(config) * prompt_tokens**2 * layers
    return attention / prefill_flops(config, [prompt_tokens] * layers)


def attention_width(config: PretrainedConfig) -> float:
    """Heads times their width: mean of the query's and the value's, which differ in multi-head latent attention."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    if (latent := getattr(config, "qk_nope_head_dim", None)) is not None:
        return heads * (latent + config.qk_rope_head_dim + config.v_head_dim) / 2
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * head_dim


def decoder_layers(model: nn.Module, num_layers: int) -> nn.ModuleList:
    """The list of a model's decoder layers, whatever its family calls it."""
    return next(
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers and "expert" not in name
    )


@lru_cache(maxsize=16)
def _weights_per_token(config_json: str) -> float:
    """Weights of matrix products that one token meets in a layer, mean over layers.

    Counted on the architecture itself, without memory: grouped queries, gated and ungated MLPs and latent
    attention need no formula each. Of a mixture only the experts that a token visits count.
    """
    fields = json.loads(config_json)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config = config.get_text_config()
    layers = decoder_layers(model, config.num_hidden_layers)
    active = getattr(config, "num_experts_per_tok", None) or getattr(config, "top_k_experts", None) or 1
    weights = 0.0
    for name, weight in layers.named_parameters():
        if weight.dim() < 2 or name.endswith("bias"):
            continue
        is_mixture = weight.dim() == 3 and "experts" in name  # (experts, out, in)
        weights += weight.numel() * (active / weight.shape[0] if is_mixture else 1)
    return weights / len(layers)
