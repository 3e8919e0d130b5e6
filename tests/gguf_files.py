"""GGUF files of tiny models, written with the format's own package: whole ones, and ones that lack something."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

EXTRA_TOKENS = ("Ġt", "he", "Ġthe", "Ġqz")  # no merge leads to the last
Writing = Callable[[gguf.GGUFWriter], Any]


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    metadata: Writing = lambda writer: None,
    lacks: Collection[str] = (),
) -> Path:
    """A Llama as llama.cpp's converter writes it.

    Args:
        metadata: adds to the file, or writes over what is there.
        lacks: keys and tensors that are left out, by how they begin.
    """
    config = model.config
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *EXTRA_TOKENS, "<|begin|>", "<|end|>", "<|turn|>"]
    types = [1] * (len(tokens) - 3) + [3] * 3
    unused = [f"<unused{index}>" for index in range(len(tokens), config.vocab_size)]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens, *unused])
    writer.add_token_types([*types, *[5] * len(unused)])
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 2)
    metadata(writer)
    for key in [key for key in writer.kv_data[0] if key.startswith(tuple(lacks))]:
        del writer.kv_data[0][key]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for ours, state in model.state_dict().items():
        name, weight = names.get_name(ours, [".weight"]), state.float().numpy()
        if (count := heads.get(name.split(".")[-2])) is not None:  # rotary pairs lie side by side
            weight = weight.reshape(count, 2, len(weight) // count // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        if not name.startswith(tuple(lacks)):
            writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
