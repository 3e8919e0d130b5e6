"""Which of a model's layers see the whole prompt, and after which of them a share of its depth prunes.

Needs no torch: settings are refused before it is there.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any


def full_attention_layers(config: Any) -> list[int]:
    """Indices of the layers without a sliding window, by the text config."""
    depth = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types:
        return [layer for layer, kind in enumerate(types) if kind == "full_attention"]
    return [] if getattr(config, "sliding_window", None) else list(range(depth))


def windowed_layers(config: Any) -> frozenset[int]:
    """Indices of the layers with a sliding window."""
    return frozenset(range(config.num_hidden_layers)) - frozenset(full_attention_layers(config))


def readable_layers(config: Any) -> list[int]:
    """Indices of the layers whose attention says what in the whole prompt matters.

    A layer with a window was never trained to see older tokens, so its attention to them means nothing. Where every
    layer has one there is no better, and all count.
    """
    return full_attention_layers(config) or list(range(config.num_hidden_layers))


def layers_run(depth: float, num_layers: int) -> int:
    """How many whole layers a share ``depth`` of a model's layers holds, at least one.

    Exact on the decimal that was written: 0.3 of 30 layers is 9, whatever the float product says.
    """
    return max(1, math.floor(Fraction(str(depth)) * num_layers))


def place(depth: float, config: Any, layers_more: int = -1) -> int:
    """The layer that has run, among those that see the whole prompt, when a share ``depth`` of a model's has run.

    From a layer that doesn't it moves on to the next one that does, or back to the latest where only the last layer,
    after which nothing is left to save, would follow.

    Args:
        config: the model's text config.
        layers_more: 0: the layer behind these.
    """
    layers, readable = config.num_hidden_layers, readable_layers(config)
    layer = min(layers_run(depth, layers) + layers_more, layers - 1)
    if layer in readable:
        return layer
    usable = [other for other in readable if other < layers - 1]
    return next((other for other in usable if other >= layer), usable[-1] if usable else layer)
