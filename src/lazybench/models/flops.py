"""FLOPs of a prefill, from a model's configuration alone.

Per layer and ``n`` tokens: ``c(n) = 2 A n + 2 d n^2 + 2 M n``. ``A`` and ``M`` count the weights that every token
meets in the attention and in the MLP (``4 d^2`` and ``3 d f`` in Llama 2), and ``2 d n^2`` is causal attention, half
of two full products. The output embedding runs for the last token alone and is left out, as are norms and
activations.

Layers are taken as equal (their mean), and a sliding window as full attention.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import torch
from torch.nn import Module, ModuleDict, ModuleList
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from lazybench.pruning.layers import configs_of_layers, find_layers

_ACTIVE = ("top_k", "num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts")  # experts that a token visits


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


def projections_flops(config: PretrainedConfig, tokens: int) -> float:
    """FLOPs of one layer's queries, keys and values: a pass that looks at its attention needs no more of it."""
    attention, _ = _weights_per_token(config.to_json_string(use_diff=False))
    text = config.get_text_config()
    output = text.hidden_size * fmean(_value_width(layer) for layer in configs_of_layers(text))
    return 2 * (attention - output) * tokens


def attention_width(config: PretrainedConfig) -> float:
    """Heads times their width: mean of the query's and the value's, which differ in multi-head latent attention.

    And the mean over layers, where these differ.
    """
    return fmean(map(_width, configs_of_layers(config.get_text_config())))


def _width(layer: PretrainedConfig) -> float:
    if (latent := getattr(layer, "qk_nope_head_dim", None)) is not None:
        return (layer.num_attention_heads * (latent + layer.qk_rope_head_dim) + _value_width(layer)) / 2
    return _value_width(layer)


def _value_width(layer: PretrainedConfig) -> int:
    heads: int = layer.num_attention_heads
    if getattr(layer, "qk_nope_head_dim", None) is not None:
        return heads * int(layer.v_head_dim)
    return heads * (getattr(layer, "head_dim", None) or layer.hidden_size // heads)


@lru_cache(maxsize=16)
def _weights_per_token(config_json: str) -> tuple[float, float]:
    """Weights of matrix products that one token meets in a layer's attention and in its MLP, means over layers.

    Counted on the architecture itself, without memory: grouped queries, gated and ungated MLPs and latent
    attention need no formula each. Of a mixture's experts, in its MLPs or its attention, those count that a token
    visits.
    """
    fields = json.loads(config_json)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    _, layers = find_layers(model)
    config = config.get_text_config()
    attention, mlp = 0.0, 0.0
    for layer in layers:
        visited = _visited_experts(layer, config)
        for name, weight in layer.named_parameters():
            if weight.dim() < 2 or name.endswith("bias"):
                continue
            met = weight.numel() * next((share for path, share in visited.items() if name.startswith(path)), 1.0)
            if "att" in name:  # self_attn, attention, self_attention, attn: what families call it
                attention += met
            else:
                mlp += met
    return attention / len(layers), mlp / len(layers)


def _visited_experts(layer: Module, config: PretrainedConfig) -> dict[str, float]:
    """By path: modules of a decoder layer that hold experts, and the share of them that a token visits.

    Such a module is one of a class of experts (``MixtralExperts``, ``JetMoeParallelExperts``) that is told who visits
    whom, however it lays out its weights, or a list of them. Its parent, or the router beside it, says how many a token
    visits. Experts that get nothing but the hidden states run for every token: shared ones, and Llama 4's.
    """
    shares: dict[str, float] = {}
    for path, module in layer.named_modules():
        in_a_list = isinstance(module, ModuleList | ModuleDict) and path.endswith("experts")
        routed = "Expert" in type(module).__name__ and len(inspect.signature(module.forward).parameters) > 1
        if not (in_a_list or routed) or any(path.startswith(known) for known in shares):  # DBRX nests them
            continue
        experts = len(module) if in_a_list else getattr(module, "num_experts", None)
        block = layer.get_submodule(path.rpartition(".")[0])
        named = [vars(near).get(name) for near in (block, *block.children()) for name in _ACTIVE]
        named += [getattr(config, name, None) for name in _ACTIVE]
        active = next((number for number in named if isinstance(number, int)), None)
        shares[path] = active / experts if isinstance(experts, int) and active else 1.0
    return shares
