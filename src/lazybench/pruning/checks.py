"""What pruning can't run rightly is refused, with one line that names the method and says why."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from torch.nn import Module
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from lazybench.errors import UserError
from lazybench.pruning.attention import ADD_MASKS
from lazybench.pruning.policy import Policy

_NO_EVICTION = {
    **dict.fromkeys(ADD_MASKS, "its attention is its own"),
    "kv_lora_rank": "it caches one latent state for all heads",
    "jetmoe": "it caches what its experts share",
    "diffllama": "its attention reads the same keys twice",
}
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def check_model(model: Module, method: str) -> None:
    """Raises: UserError for a model that can't run under ``method``."""
    if not isinstance(model, PreTrainedModel):
        ways = ("_orig_mod", "get_base_model()", "module")
        found = (f"; pass model.{way}, the model in it" for way in ways if hasattr(model, way.removesuffix("()")))
        raise UserError(f"{method} takes a transformers model, not {type(model).__name__}{next(found, '')}")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise UserError(f"{method} can't hook into a compiled model; leave model.compile() out")
    config = model.config.get_text_config()
    if why := _why_not(model, config):
        raise UserError(f"{model.config.model_type} can't run under {method}: {why}")
    if not model.can_generate():
        raise UserError(f"{type(model).__name__} has no generate(); pass the model with its language-modelling head")


def _why_not(model: PreTrainedModel, config: Any) -> str:
    other = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if other or getattr(model, "_is_stateful", False):
        return f"it has layers that are no attention over a KV cache of their own {sorted(other)}"
    if model.config.is_encoder_decoder:
        return "it is an encoder-decoder model, not a decoder-only one"
    adds_masks = config.model_type in ADD_MASKS and not getattr(config, "alibi", False)
    if not (adds_masks or model._can_set_attn_implementation()):
        return "it computes attention in its own way, and not by transformers' attention interface"
    if getattr(config, "num_kv_shared_layers", 0):
        return "its layers share keys and values across stages"
    attention = [module for module in model.modules() if type(module).__name__ == "Llama4TextAttention"]
    if attention and "cache_position" in inspect.signature(attention[0].forward).parameters:  # transformers 5.2
        return "on this transformers it scales by step, not by position"
    return ""


def check_mode(model: Module, method: str) -> None:
    if model.training:
        raise UserError(f"the model is in training mode; call model.eval() before {method}")


def check_policy(policy: Policy, config: Any, num_layers: int) -> None:
    """Refuse what a model of this text config can't do; families of ``ADD_MASKS`` show probabilities alone."""
    policy.check_depth(num_layers)
    shared = "kv_lora_rank" if getattr(config, "kv_lora_rank", None) else config.model_type
    if policy.retention is not None and (why := _NO_EVICTION.get(shared)):
        raise UserError(f"{config.model_type} keeps its KV cache whole: {why}, so no keys can be evicted by head")
    if config.model_type in ADD_MASKS and getattr(policy.scorer, "products", False):
        raise UserError("this model's family shows probabilities alone, no query-key products; score with softmax")


def check_call(kwargs: dict[str, Any], config: Any, only_last_logits: bool, method: str) -> None:
    """Refuse outputs that pruned tokens do not have: of all but the last token, whatever they are.

    Args:
        kwargs: of the model's forward; its config can ask for outputs too, as ``output_router_logits`` does.
        only_last_logits: tokens are pruned, and the model can be asked for the last token's logits alone.
    """
    for name in {**vars(config.get_text_config()), **vars(config), **kwargs}:
        flag = name.removeprefix("_")
        if flag.startswith("output_") and kwargs.get(flag, getattr(config.get_text_config(), name, False)) is True:
            raise _of_pruned_tokens(f"{flag}=True", method)
    if kwargs.get("labels") is not None:
        raise _of_pruned_tokens("labels=", method)
    if not only_last_logits:
        return
    inputs = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
    if isinstance(inputs, Tensor) and inputs.shape[1] > 1:
        wanted = kwargs.get("logits_to_keep", 0)
        if isinstance(wanted, Tensor) or wanted != 1:
            asked = f"logits_to_keep={wanted}" + ("" if "logits_to_keep" in kwargs else ", the default,")
            raise UserError(
                f"{asked} asks for logits of other tokens than the last, which pruned ones do not have under {method}; "
                "call model.generate(), or pass logits_to_keep=1, without assisted decoding"
            )


def check_outputs(output: Any, method: str) -> None:
    """Refuse a forward's results beside the logits, which come first, and the cache, whatever asked for them."""
    named = output.items() if isinstance(output, dict) else [(f"output {i}", value) for i, value in enumerate(output)]
    for name, value in list(named)[1:]:
        if value is not None and not isinstance(value, Cache):
            raise _of_pruned_tokens(name, method)


def _of_pruned_tokens(asked: str, method: str) -> UserError:
    return UserError(
        f"{asked} asks for results of every token, and {method} does not compute pruned ones; leave it out, "
        "or run the plain model for it"
    )


def check_generate(defaults: GenerationConfig, args: tuple, kwargs: dict[str, Any], method: str) -> None:
    """Refuse a ``generate`` call, by its arguments and the model's defaults, that gives its prompt in pieces."""
    name = "prefill_chunk_size"
    sizes = [kwargs.get(name), *(getattr(config, name, None) for config in (defaults, *args, *kwargs.values()))]
    if size := next(filter(None, sizes), None):
        raise UserError(f"{method} prunes by the whole prompt's last token; leave {name}={size} out")


def window_of(config: Any) -> int | None:
    """How many tokens a model of this text config can attend to; None: it doesn't say.

    ``max_position_embeddings``, or what its rope scaling (yarn, dynamic, linear) makes of the length that it states
    for the time before: one config states the window before scaling, another the one after.
    """
    stated = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    of_layers = [part for part in rope.values() if isinstance(part, dict)] or [rope]  # one for each type of layer
    return None if stated is None else max(stated, *(_scaled(part, stated) for part in of_layers))


def _scaled(rope: dict[str, Any], stated: int) -> int:
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1.0
    before = rope.get("original_max_position_embeddings") or (stated if kind == "dynamic" else 0)
    return int(factor * before) if kind in ("yarn", "dynamic", "linear") else stated


def check_prompt(config: Any, tokens: int) -> None:
    """Refuse a prompt longer than the model's window, before anything runs."""
    window = window_of(config)
    if window is not None and tokens > window:
        raise UserError(f"the prompt has {tokens} tokens, the model's window {window}; shorten the prompt")


def check_cache(cache: Any, method: str) -> None:
    """Refuse a cache that pruning can't stand in for. An empty ``DynamicCache`` is replaced."""
    if cache is None:
        return
    if type(cache) is not DynamicCache or getattr(cache, "offloading", False) or cache.get_seq_length():
        raise UserError(
            f"{method} brings its own KV cache and can't go on with this {type(cache).__name__}; "
            "leave past_key_values and cache_implementation out and start from the prompt"
        )


def check_padding(mask: Tensor | None, shape: tuple[int, int]) -> None:
    """Refuse anything but a mask of ``shape``, (batch, tokens), with padding on the left of the prompt alone."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.shape != shape:
        given = tuple(mask.shape) if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise UserError(f"attention_mask must be of shape {shape}, batch and tokens, not {given}")
    if not bool((mask[:, 1:] >= mask[:, :-1]).all() & mask[:, -1:].all()):  # it rises, to the end
        raise UserError("prompts must be padded on the left, with no hole; set tokenizer.padding_side = 'left'")
