"""What LazyLLM can't run rightly is refused, with one line that says why."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Module
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from lazybench.errors import UserError
from lazybench.pruning.layers import full_attention_layers
from lazybench.pruning.policy import Policy

if TYPE_CHECKING:
    from lazybench.pruning.cache import LazyCache

_UNSUPPORTED = {
    "gpt_neo": "its local layers keep their own mask by index, which pruning would shift",
    "xglm": "its layers check the size of a mask that pruning makes smaller",
}
_NO_EVICTION = {
    "kv_lora_rank": "it caches one latent state for all heads",
    "jetmoe": "it caches what its experts share",
    "diffllama": "its attention reads the same keys twice",
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


def check_policy(policy: Policy, config: Any, num_layers: int, legacy: bool) -> None:
    """Refuse what this model can't do.

    Args:
        config: the model's text config.
        legacy: the family computes attention itself and shows probabilities alone.
    """
    policy.check_depth(num_layers)
    shared = "kv_lora_rank" if getattr(config, "kv_lora_rank", None) else config.model_type
    if policy.retention is not None and (why := _NO_EVICTION.get(shared)):
        raise UserError(f"{config.model_type} keeps its KV cache whole: {why}, so no keys can be evicted by head")
    if legacy and policy.retention is not None:
        raise UserError("this model's family keeps its attention to itself, so no keys can be evicted from its cache")
    if legacy and getattr(policy.scorer, "products", False):
        raise UserError("this model's family shows probabilities alone, no query-key products; score with softmax")


def check_batch(policy: Policy, config: Any, batch: int, padding: Tensor | None) -> None:
    """Refuse batches that a policy can't serve: what it decides per prompt must hold for all rows."""
    if batch > 1 and config.model_type == "mpt":
        raise UserError("mpt runs under LazyLLM one prompt at a time: its position bias has no batch axis")
    if batch > 1 and policy.placement.fixed is None:
        raise UserError("where tokens are pruned is decided for each prompt by itself; give one prompt at a time")
    by_length = policy.last_share or getattr(policy.scorer, "window_share", 0.0)
    if padding is not None and by_length:
        raise UserError("this policy's window is a share of the prompt; give prompts of equal length, or one at a time")


def check_owner(cache: LazyCache, model: PreTrainedModel, policy: Policy) -> None:
    """Refuse a cache that another model or policy filled, or that a failed pass left incomplete."""
    filled_by, under = cache.owner
    if filled_by() is not model:
        raise UserError("past_key_values comes from another model; leave it out to start from the prompt")
    if under != policy:
        differ = [field.name for field in fields(policy) if getattr(under, field.name) != getattr(policy, field.name)]
        raise UserError(
            f"past_key_values was filled under another pruning policy: {', '.join(differ)} differ "
            f"({under.placement}, not {policy.placement}); leave it out to start from the prompt"
        )
    if cache.failed:
        raise UserError("an earlier forward pass on this past_key_values failed halfway; start from the prompt")


def windowed_layers(config: Any) -> frozenset[int]:
    """Indices of the layers with a sliding window."""
    return frozenset(range(config.num_hidden_layers)) - frozenset(full_attention_layers(config))


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
