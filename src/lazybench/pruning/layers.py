"""Where a model's decoder layers are, whatever its family calls them."""

from __future__ import annotations

from typing import Any

from torch.nn import Module, ModuleList

from lazybench.errors import UserError

_MLP_NAMES = ("mlp", "feed_forward", "block_sparse_moe")


def find_layers(model: Module) -> tuple[Module, ModuleList]:
    """The module that runs the decoder layers, and the layers.

    Raises:
        UserError: there is no list of as many layers as the model's config says.
    """
    depth = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == depth and "expert" not in name:
            return model.get_submodule(name.rpartition(".")[0]), module
    raise UserError(f"no list of {depth} decoder layers found in {type(model).__name__}")


def find_mlp(layer: Module) -> Module | None:
    """The part of a decoder layer that treats each token by itself; None where it is no module of its own."""
    return next((module for name in _MLP_NAMES if (module := getattr(layer, name, None)) is not None), None)


def full_attention_layers(config: Any) -> list[int]:
    """Indices of the layers without a sliding window."""
    depth = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types:
        return [layer for layer, kind in enumerate(types) if kind == "full_attention"]
    return [] if getattr(config, "sliding_window", None) else list(range(depth))
