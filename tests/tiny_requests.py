"""A request to a tiny real model with random weights, far enough from uniform that agreement means something."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lazybench.methods.request import Request

VOCABULARY = 260
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 64, "num_key_value_heads": 2},
    "gpt2": {"max_position_embeddings": 512},
    "gemma2": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},
    "mistral": {"intermediate_size": 64, "num_key_value_heads": 2, "sliding_window": 16},
    "falcon": {},
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
    torch.manual_seed(1)
    settings = AutoConfig.for_model(family, **{**COMMON, **FAMILIES[family], **config})
    model = AutoModelForCausalLM.from_config(settings).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    tokenizer = byte_tokenizer()
    text = topics["assignment"]
    ids = torch.tensor([[1, *tokenizer(text).input_ids]])[:, :prompt_tokens]
    kwargs = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    return Request(model, tokenizer, ids, kwargs, seed=0, context=ids[0] != 1)  # all but the begin of text
