"""Putting the engine's attention and mask functions into a model's configs, and taking them out again."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch.nn import Module, ModuleList
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from lazybench.errors import UserError
from lazybench.pruning import checks
from lazybench.pruning.attention import lazy_attention
from lazybench.pruning.layers import find_layers, kind_of_keys
from lazybench.pruning.masks import mask_rule

IMPLEMENTATION = "lazyllm"  # transformers matches implementation names by substring: avoid "sdpa", "flash", "flex"
_active: WeakKeyDictionary[Module, str] = WeakKeyDictionary()  # the method that each runs under


@dataclass(frozen=True)
class Parts:
    """What the engine needs to know of a model, and what no generation changes.

    Attributes:
        decoder, layers: the module that runs the decoder layers, and the layers.
        kinds: of each layer's keys and values, see ``kind_of_keys``.
        configs: the configs of the model and its modules, each once.
        inputs: the names of the arguments of its forward.
        legacy: the family computes attention itself; nothing is registered.
    """

    decoder: Module
    layers: ModuleList
    kinds: tuple[Any, ...]
    configs: tuple[PreTrainedConfig, ...]
    inputs: tuple[str, ...]
    legacy: bool


_known: WeakKeyDictionary[Module, Parts] = WeakKeyDictionary()


def parts_of(model: PreTrainedModel, method: str) -> Parts:
    """Found once for each model: a walk over its modules would be part of every TTFT.

    Args:
        method: who asks, for the error.

    Raises:
        UserError: a model that can't run under the engine.
    """
    if model not in _known:
        checks.check_model(model, method)
        decoder, layers = find_layers(model, method)
        found: dict[int, Any] = {id(c): c for module in model.modules() if (c := getattr(module, "config", None))}
        inputs = tuple(inspect.signature(model.forward).parameters)
        legacy = not model._can_set_attn_implementation()
        kinds = tuple(map(kind_of_keys, layers))
        _known[model] = Parts(decoder, layers, kinds, tuple(found.values()), inputs, legacy)
    checks.check_mode(model, method)
    return _known[model]


class Attachment:
    """What makes a model's attention and masks the engine's, from ``enter`` until ``undo`` takes it back."""

    def __init__(self, model: PreTrainedModel, parts: Parts, method: str) -> None:
        self.model, self.parts, self.method = model, parts, method
        self._grouped: list[PreTrainedConfig] = []  # configs whose experts run as a grouped product

    def enter(self, undo: ExitStack) -> None:
        """Raises: UserError for a model, or a shared config, that runs under the engine already."""
        if self.model in _active:
            raise UserError(
                f"{self.method} can't start: this model runs under {_active[self.model]} already; "
                "leave that context before entering another"
            )
        undo.callback(_unregister_when_last)
        _active[self.model] = self.method
        undo.callback(_active.pop, self.model, None)
        if self.parts.legacy:
            return
        configs: tuple[Any, ...] = self.parts.configs
        if any(config._attn_implementation_internal == IMPLEMENTATION for config in configs):
            raise UserError(
                f"{self.method} can't start: this model shares its config with one that is being pruned; "
                "build each from its own copy"
            )
        self._grouped = [c for c in configs if getattr(c, "_experts_implementation_internal", None) == "grouped_mm"]
        for config in configs:
            undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
            config._attn_implementation_internal = IMPLEMENTATION
        for interface, function in ((AttentionInterface, lazy_attention), (AttentionMaskInterface, mask_rule)):
            if IMPLEMENTATION not in interface._global_mapping:
                interface.register(IMPLEMENTATION, function)

    def keep_experts_grouped(self) -> None:
        """``generate`` decodes with "batched_mm" on a GPU, which copies a token's experts for each token.

        That is too many here, where a step computes its revived tokens too.
        """
        for config in self._grouped:
            config._experts_implementation_internal = "grouped_mm"


def _unregister_when_last() -> None:
    if not _active:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(IMPLEMENTATION, None)
