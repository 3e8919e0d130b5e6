"""A request to a tiny real model with random weights, far enough from uniform that agreement means something."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import torch
from tiny_models import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lazybench.methods.request import Request

WINDOW = {"sliding_window": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "falcon": {},
    "gemma2": WINDOW,
    "mistral": WINDOW,
    "gemma4_text": {
        **WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 4,
        "vocab_size_per_layer_input": 260,
    },
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and ``<s>`` before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>")


def tiny_request(family: str = "llama", prompt_tokens: int = 60, new_tokens: int = 6, **config: Any) -> Request:
    fields = {"vocab_size": 260, "num_hidden_layers": 8, "max_position_embeddings": 512, "eos_token_id": None}
    model, tokenizer = tiny_model(family, seed=1, **{**fields, **FAMILIES[family], **config}), byte_tokenizer()
    ids = torch.tensor([[1, *tokenizer(topics["assignment"]).input_ids]])[:, :prompt_tokens]
    kwargs = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    return Request(model, tokenizer, ids, kwargs, seed=0, context=ids[0] != 1)  # all but the begin of text
