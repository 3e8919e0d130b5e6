"""FLOPs of a prefill, from a model's configuration alone.

Per layer and ``n`` tokens: ``c(n) = 2 A n + 2 d n^2 + 2 M n``. ``A`` and ``M`` count the weights that every token
meets in the attention and in the MLP (``4 d^2`` and ``3 d f`` in Llama 2), and ``2 d n^2`` is causal attention, half
of two full products. The output embedding runs for the last token alone and is left out, as are norms and
activations.

Layers are taken as equal (their mean), and a sliding window as full attention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from lazybench.pruning.layers import find_layers


@dataclass(frozen=True)
class LayerCost:
    """A model's layer as FLOPs see it, mean over its layers: all that the count needs, so that a run can keep it."""

    attention_weights: float  # that each token meets
    mlp_weights: float
    attention_width: float
    layers: int

    def flops(self, tokens_per_layer: Sequence[float], mlp_tokens_per_layer: Sequence[float] | None = None) -> float:
        """``prefill_flops`` of a model of this cost."""
        after = tokens_per_layer if mlp_tokens_per_layer is None else mlp_tokens_per_layer
        return float(
            sum(
                2 * self.attention_weights * n + 2 * self.attention_width * n * n + 2 * self.mlp_weights * left
                for n, left in zip(tokens_per_layer, after, strict=True)
            )
        )


def layer_cost(config: PretrainedConfig) -> LayerCost:
    """The cost of a model's layer, from its configuration alone."""
    attention, mlp = _weights_per_token(config.to_json_string(use_diff=False))
    return LayerCost(attention, mlp, attention_width(config), config.get_text_config().num_hidden_layers)


def prefill_flops(
    config: PretrainedConfig, tokens_per_layer: Sequence[float], mlp_tokens_per_layer: Sequence[float] | None = None
) -> float:
    """FLOPs of a prefill in which layer ``l`` computes ``tokens_per_layer[l]`` tokens.

    Args:
        tokens_per_layer: one count for each layer run. A method that runs layers twice (a probe, then a rerun)
            lists them twice.
        mlp_tokens_per_layer: tokens in the MLPs, when some are dropped after a layer's attention.
    """
    return layer_cost(config).flops(tokens_per_layer, mlp_tokens_per_layer)


def full_prefill_flops(config: PretrainedConfig, tokens: int) -> float:
    """FLOPs of the plain prefill: every token through every layer."""
    return prefill_flops(config, [tokens] * config.get_text_config().num_hidden_layers)


def attention_width(config: PretrainedConfig) -> float:
    """Heads times their width: mean of the query's and the value's, which differ in multi-head latent attention."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    if (latent := getattr(config, "qk_nope_head_dim", None)) is not None:
        return heads * (latent + config.qk_rope_head_dim + config.v_head_dim) / 2
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * head_dim


@lru_cache(maxsize=16)
def _weights_per_token(config_json: str) -> tuple[float, float]:
    """Weights of matrix products that one token meets in a layer's attention and in its MLP, means over layers.

    Counted on the architecture itself, without memory: grouped queries, gated and ungated MLPs and latent
    attention need no formula each. Of a mixture whose experts lie in one tensor only
    those that a token visits count.
    """
    fields = json.loads(config_json)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    _, layers = find_layers(model)
    config = config.get_text_config()
    active = getattr(config, "num_experts_per_tok", None) or getattr(config, "top_k_experts", None) or 1
    active = active[0] if isinstance(active, (list, tuple)) else active  # HunYuan: one for each layer
    attention, mlp = 0.0, 0.0
    for name, weight in layers.named_parameters():
        if weight.dim() < 2 or name.endswith("bias"):
            continue
        is_mixture = weight.dim() == 3 and "experts" in name  # (experts, out, in)
        met = weight.numel() * (active / weight.shape[0] if is_mixture else 1)
        if "att" in name:  # self_attn, attention, self_attention, attn: what families call it
            attention += met
        else:
            mlp += met
    return attention / len(layers), mlp / len(layers)
