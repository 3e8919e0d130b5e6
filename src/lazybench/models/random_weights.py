"""The true shape of a model with random weights, made on the device: for speed alone, no hub and no download."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lazybench.errors import UserError, library_errors
from lazybench.models.spec import ModelSpec
from lazybench.pruning.checks import window_of


def true_shape(spec: ModelSpec) -> PretrainedConfig:
    """The configuration that ``spec.config`` states.

    Raises:
        UserError: no shape is stated, or one that transformers does not know.
    """
    shape = dict(spec.config)
    kind = shape.pop("model_type", None)
    if kind is None:
        raise UserError(
            f"model {spec.name} states no shape for weights=random; give model.path=FOLDER with its config.json, "
            "or '+model.config={model_type: llama, hidden_size: 4096, ...}'"
        )
    with library_errors(f"model.config of {spec.name}"):
        return AutoConfig.for_model(kind, **shape)


def cut_depth(config: PretrainedConfig, num_layers: int) -> None:
    """Keep the first layers of a configuration.

    Raises:
        UserError: more layers than the model has.
    """
    text = config.get_text_config()
    if num_layers > text.num_hidden_layers:
        raise UserError(f"model.num_layers={num_layers} exceeds the model's {text.num_hidden_layers}")
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:num_layers]


def widen(config: PretrainedConfig, window_tokens: int) -> None:
    """Room for longer prompts than the true shape's: random weights have no positions that they were trained on."""
    text = config.get_text_config()
    if (window := window_of(text)) is not None and window < window_tokens:
        text.max_position_embeddings = window_tokens


def random_model(config: PretrainedConfig, dtype: torch.dtype, device: torch.device, attention: str) -> PreTrainedModel:
    """The same weights in every process: normal with the configuration's ``initializer_range``, seed 0.

    Raises:
        UserError: transformers does not know this attention, or a package that it needs is missing.
    """
    state = torch.random.get_rng_state()
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    try:
        with library_errors(f"model.attention={attention} can't be used here"), device:
            torch.manual_seed(0)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)
    finally:
        torch.random.set_rng_state(state)
    model.generation_config.eos_token_id = None  # no end by chance: every run generates to its limit
    return model


def byte_tokenizer(vocab_size: int) -> PreTrainedTokenizerBase:
    """One id a byte: timing needs only ids within the vocabulary, and no checkpoint's tokenizer is at hand.

    Raises:
        UserError: a vocabulary smaller than the bytes.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(letters):
        raise UserError(f"weights=random needs a vocabulary of at least {len(letters) + 1} tokens, not {vocab_size}")
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(["<pad>", *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>", clean_up_tokenization_spaces=False
    )
