"""Where a model's decoder layers are, whatever its family calls them."""

from __future__ import annotations

import inspect
from typing import Any

from torch.nn import Module, ModuleList

from lazybench.errors import UserError

_CACHES = ("cache", "past_key_value", "past_key_values", "layer_past")
_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_MLP_NAMES = ("mlp", "feed_forward", "block_sparse_moe")


def find_layers(model: Module, method: str = "pruning") -> tuple[Module, ModuleList]:
    """The module that runs the decoder layers, and the layers.

    Args:
        method: who asks, for the error.

    Raises:
        UserError: there is no list of as many layers as the model's config says, that are handed a KV cache.
    """
    depth = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == depth and all(map(_takes_a_cache, module)):
            return model.get_submodule(name.rpartition(".")[0]), module
    name = type(model).__name__
    raise UserError(f"{name} can't run under {method}: it has no list of {depth} decoder layers with a KV cache")


def _takes_a_cache(layer: Module) -> bool:
    """Whether it is a decoder's layer: a vision tower can have as many, and so can a mixture have experts."""
    return any(name in inspect.signature(layer.forward).parameters for name in _CACHES)


def cache_argument(model: Module) -> str:
    """What its forward calls the KV cache: "cache" since transformers 5.24, "past_key_values" before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def cache_of(output: Any) -> Any:
    """The KV cache of a forward pass's output, or a generation's."""
    return output.cache if hasattr(output, "cache") else output.past_key_values


def kind_of_keys(layer: Module) -> tuple[Any, ...]:
    """Equal for layers whose keys and values have the same shapes: their attention has the same weights and heads.

    Gemma 4 has wider heads in its full-attention layers.
    """
    shapes = tuple(tuple(weight.shape) for name, weight in layer.named_parameters() if "att" in name)
    return shapes, tuple(width for module in layer.modules() if (width := getattr(module, "head_dim", None)))


def find_mlp(layer: Module) -> Module | None:
    """The part of a decoder layer that treats each token by itself; None where it is no module of its own.

    Nor where experts stand beside it, which would run for every token all the same (Gemma 4's mixture).
    """
    if hasattr(layer, "experts"):
        return None
    return next((module for name in _MLP_NAMES if (module := getattr(layer, name, None)) is not None), None)


def find_attention(layer: Module, method: str = "pruning") -> Module:
    """The part of a decoder layer that attends.

    Raises:
        UserError: there is none that returns what is added to the residual (bloom's adds it itself).
    """
    found = next((module for name in _ATTENTION_NAMES if (module := getattr(layer, name, None)) is not None), None)
    if found is None or "residual" in inspect.signature(found.forward).parameters:
        raise UserError(f"{method} can't read {type(layer).__name__}: its attention returns no update of its own")
    return found


def configs_of_layers(config: Any) -> list[Any]:
    """The text config as each layer has it: Gemma 4's layers differ in the width of their heads."""
    per_layer = getattr(config, "per_layer_config", None)
    return [config if per_layer is None else per_layer[layer] for layer in range(config.num_hidden_layers)]
