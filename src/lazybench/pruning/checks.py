"""What LazyLLM can't run rightly is refused, with one line that says why."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from torch.nn import Module, ModuleList
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from lazybench.errors import UserError
from lazybench.pruning.schedule import PruningSchedule

_UNSUPPORTED = {
    "gpt_neo": "its local layers keep their own mask by index, which pruning would shift",
}
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def check_model(model: Module) -> None:
    """Raises: UserError for a model that can't run under LazyLLM."""
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"LazyLLM takes a transformers model, not {type(model).__name__}")
    config = model.config.get_text_config()
    family = config.model_type
    if family in _UNSUPPORTED:
        raise UserError(f"{family} can't run under LazyLLM: {_UNSUPPORTED[family]}")
    if model.config.is_encoder_decoder:
        raise UserError(f"{family} can't run under LazyLLM: it is an encoder-decoder model, not a decoder-only one")
    if not model.can_generate():
        raise UserError(f"{type(model).__name__} has no generate(); pass the model with its language-modelling head")
    other = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if other or getattr(model, "_is_stateful", False):
        raise UserError(f"{family} can't run under LazyLLM: it has layers without a KV cache {sorted(other)}")
    if getattr(config, "num_kv_shared_layers", 0):
        raise UserError(f"{family} can't run under LazyLLM: its layers share keys and values across stages")
    if family == "llama4_text" and "cache_position" in _attention_inputs(model):
        raise UserError("llama4_text can't run under LazyLLM on this transformers: it scales by step, not by position")
    check_mode(model)


def _attention_inputs(model: Module) -> set[str]:
    attention = (module for module in model.modules() if type(module).__name__.endswith("Attention"))
    return {name for module in attention for name in inspect.signature(module.forward).parameters}


def check_mode(model: Module) -> None:
    if model.training:
        raise UserError("the model is in training mode; call model.eval() before LazyLLM")


def find_layers(model: PreTrainedModel) -> tuple[Module, ModuleList]:
    """The module that runs the decoder layers, and the layers."""
    depth = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == depth and "expert" not in name:
            return model.get_submodule(name.rpartition(".")[0]), module
    raise UserError(f"no list of {depth} decoder layers found in {type(model).__name__}")


def check_call(kwargs: dict[str, Any], config: Any, only_last_logits: bool) -> None:
    """Refuse outputs that pruned tokens do not have.

    Args:
        kwargs: of the model's forward.
        only_last_logits: tokens are pruned, and the model can be asked for the last token's logits alone.
    """
    for output in ("output_hidden_states", "output_attentions"):
        if kwargs.get(output) or (output not in kwargs and getattr(config, output, False)):
            raise UserError(f"{output}=True asks for states of pruned tokens, which LazyLLM does not compute")
    if kwargs.get("labels") is not None:
        raise UserError("labels need the logits of every token, which LazyLLM does not compute; pass none")
    if not only_last_logits:
        return
    inputs = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
    if isinstance(inputs, Tensor) and inputs.shape[1] > 1:
        wanted = kwargs.get("logits_to_keep", 0)
        if isinstance(wanted, Tensor) or wanted != 1:
            raise UserError(
                f"logits_to_keep={wanted} asks for logits of pruned tokens (as assisted decoding does); "
                "only the last token has them: pass logits_to_keep=1"
            )


def check_generate(defaults: GenerationConfig, args: tuple, kwargs: dict[str, Any]) -> None:
    """Refuse a ``generate`` call that runs its prompt in pieces.

    Args:
        defaults: the model's own generation config.
        args: of ``generate``, with ``kwargs``.
    """
    configs = [defaults, kwargs.get("generation_config"), *args]
    size = kwargs.get("prefill_chunk_size") or max(getattr(config, "prefill_chunk_size", 0) or 0 for config in configs)
    if size:
        raise UserError(f"LazyLLM prunes by the whole prompt's last token; leave prefill_chunk_size={size} out")


def check_prompt(config: Any, tokens: int) -> None:
    """Refuse a prompt longer than the model's window, before anything runs."""
    window = getattr(config, "max_position_embeddings", None)
    if window is not None and tokens > window:
        raise UserError(f"the prompt has {tokens} tokens, the model's window {window}; shorten the prompt")


def check_cache(cache: Any) -> None:
    """Refuse a cache that LazyLLM can't stand in for. An empty ``DynamicCache`` is replaced."""
    if cache is None:
        return
    if type(cache) is not DynamicCache or getattr(cache, "offloading", False):
        raise UserError(f"LazyLLM brings its own KV cache and can't use a {type(cache).__name__}; leave it out")
    if cache.get_seq_length():
        raise UserError(
            f"past_key_values holds {cache.get_seq_length()} tokens computed without LazyLLM, whose Aux Cache "
            "knows nothing of them; start from the prompt"
        )


def check_padding(mask: Tensor | None, start: int, new: int) -> None:
    """Refuse anything but a (batch, tokens) mask with padding on the left of the prompt."""
    if mask is None:
        return
    if mask.dim() != 2 or mask.shape[1] != start + new:
        raise UserError(f"attention_mask must be (batch, {start + new}), not {tuple(mask.shape)}")
    must_be_real = mask[:, start:] if start else mask[:, -1:]
    if not bool(must_be_real.all()):
        raise UserError("prompts of a batch must be padded on the left; set tokenizer.padding_side = 'left'")


def full_attention_layers(config: Any) -> list[int]:
    """Indices of the layers without a sliding window."""
    depth = config.num_hidden_layers
    types = getattr(config, "layer_types", None)
    if types:
        return [layer for layer, kind in enumerate(types) if kind == "full_attention"]
    return [] if getattr(config, "sliding_window", None) else list(range(depth))


def resolve_windows(schedule: PruningSchedule, config: Any) -> tuple[int, ...]:
    """The schedule's pruning layers, moved to the nearest full-attention layer where it says so.

    Raises:
        UserError: there is none to move to, or two would prune at the same layer.
    """
    if schedule.sliding_window == "ignored":
        return schedule.layers
    last = config.num_hidden_layers - 2
    targets = [layer for layer in full_attention_layers(config) if layer <= last]
    if not targets:
        raise UserError("pruning.sliding_window=moved needs a full-attention layer before the last; use 'ignored'")
    moved = tuple(min(targets, key=lambda target: (abs(target - layer), target)) for layer in schedule.layers)
    if len(set(moved)) < len(moved):
        raise UserError(
            f"pruning.sliding_window=moved sends pruning layers {list(schedule.layers)} to {list(moved)}; "
            "leave one out or use 'ignored'"
        )
    return moved
