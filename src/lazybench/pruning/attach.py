"""What the engine puts into a model, and takes out again: attention and masks, its ``generate``, its MLPs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module, ModuleList
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from lazybench.errors import UserError
from lazybench.pruning import checks
from lazybench.pruning.attention import lazy_attention, mask_rule
from lazybench.pruning.kv import take_rows
from lazybench.pruning.layers import cache_argument, find_layers, kind_of_keys

IMPLEMENTATION = "lazyllm"  # transformers matches implementation names by substring: avoid "sdpa", "flash", "flex"
_active: WeakKeyDictionary[Module, str] = WeakKeyDictionary()  # the method that each runs under


@dataclass(frozen=True)
class Parts:
    """What the engine needs to know of a model, and what no generation changes.

    Attributes:
        decoder, layers: the module that runs the decoder layers, and the layers.
        kinds: of each layer's keys and values, see ``kind_of_keys``.
        config: the text config.
        configs: the configs of the model and its modules, each once.
        inputs: the names of the arguments of its forward.
        cache: the KV cache's among them.
    """

    decoder: Module
    layers: ModuleList
    kinds: tuple[Any, ...]
    config: Any
    configs: tuple[PreTrainedConfig, ...]
    inputs: tuple[str, ...]
    cache: str


_known: WeakKeyDictionary[Module, Parts] = WeakKeyDictionary()


def parts_of(model: PreTrainedModel, method: str) -> Parts:
    """Found once for each model: a walk over its modules would be part of every TTFT.

    Raises:
        UserError: a model that can't run under ``method``, by the engine.
    """
    if model not in _known:
        checks.check_model(model, method)
        decoder, layers = find_layers(model, method)
        found: dict[int, Any] = {id(c): c for module in model.modules() if (c := getattr(module, "config", None))}
        inputs = tuple(inspect.signature(model.forward).parameters)
        kinds = tuple(map(kind_of_keys, layers))
        config, configs = model.config.get_text_config(), tuple(found.values())
        _known[model] = Parts(decoder, layers, kinds, config, configs, inputs, cache_argument(model))
    checks.check_mode(model, method)
    return _known[model]


def attach(model: PreTrainedModel, parts: Parts, method: str, undo: ExitStack) -> list[Any]:
    """Make a model's attention and masks the engine's, until ``undo`` takes it back.

    Returns:
        The configs whose experts run as a grouped product.

    Raises:
        UserError: a model, or a shared config, that runs under the engine already.
    """
    if model in _active:
        raise UserError(
            f"{method} can't start: this model runs under {_active[model]} already; "
            "leave that context before entering another"
        )
    undo.callback(_unregister_when_last)
    _active[model] = method
    undo.callback(_active.pop, model, None)
    configs: tuple[Any, ...] = parts.configs
    if any(config._attn_implementation_internal == IMPLEMENTATION for config in configs):
        raise UserError(
            f"{method} can't start: this model shares its config with one that is being pruned; "
            "build each from its own copy"
        )
    for config in configs:
        undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
        config._attn_implementation_internal = IMPLEMENTATION
    for interface, function in ((AttentionInterface, lazy_attention), (AttentionMaskInterface, mask_rule)):
        if IMPLEMENTATION not in interface._global_mapping:
            interface.register(IMPLEMENTATION, function)
    return [config for config in configs if getattr(config, "_experts_implementation_internal", None) == "grouped_mm"]


def _unregister_when_last() -> None:
    if not _active:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(IMPLEMENTATION, None)


def wrap_generate(model: PreTrainedModel, inside: Callable[[bool], None], method: str, undo: ExitStack) -> None:
    """Check each ``generate`` call, and tell where it begins (True) and ends; ``undo`` puts back what was there."""
    attributes = vars(model)
    original = cast(Callable[..., Any], model.generate)
    if "generate" in attributes:
        undo.callback(attributes.update, generate=original)
    else:
        undo.callback(attributes.pop, "generate")

    @functools.wraps(original)
    def generate(*args: Any, **kwargs: Any) -> Any:
        checks.check_generate(model.generation_config, args, kwargs, method)
        inside(True)
        try:
            return original(*args, **kwargs)
        finally:
            inside(False)

    attributes["generate"] = generate


def save_mlp(mlp: Module, rows_that_go_on: Callable[[Tensor], Tensor | None], undo: ExitStack) -> None:
    """A pruning layer's MLP runs for the tokens that go on alone, until ``undo`` (UniPrefill drops them before it).

    What it would have given the other tokens stays zero: they are dropped anyway.

    Args:
        rows_that_go_on: called with the MLP's input; (batch, next current tokens) rows of it, None: all of them.
    """
    running: list[tuple[Tensor, torch.Size]] = []

    def before(module: Module, args: tuple) -> tuple | None:
        shape, rows = args[0].shape, rows_that_go_on(args[0])
        running.clear()
        if rows is None:
            return None
        rows = rows.to(args[0].device)
        running.append((rows, shape))
        # bloom's MLP gets the residual too, and adds it itself
        per_token = [isinstance(arg, Tensor) and arg.shape[:2] == shape[:2] for arg in args]
        return tuple(take_rows(arg, rows) if cut else arg for arg, cut in zip(args, per_token, strict=True))

    def after(module: Module, args: tuple, output: Any) -> Any:
        if not running:
            return output
        rows, shape = running.pop()
        part = output if isinstance(output, Tensor) else output[0]
        part = part.view(*rows.shape, -1)  # Llama 4's experts return theirs flat, (tokens, hidden)
        whole = part.new_zeros(*shape[:2], part.shape[-1]).scatter(1, rows[..., None].expand_as(part), part)
        return whole if isinstance(output, Tensor) else (whole, *output[1:])

    undo.callback(mlp.register_forward_pre_hook(before).remove)
    undo.callback(mlp.register_forward_hook(after).remove)
