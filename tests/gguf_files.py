"""GGUF files of tiny models, written with the format's own package: whole ones, and ones that lack something."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
EXTRA_TOKENS = ("Ġt", "he", "Ġthe", "Ġqz")  # no merge leads to the last
Writing = Callable[[gguf.GGUFWriter], Any]


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    pre: str = "smollm",
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
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*tokens, *unused])
    writer.add_token_types([*types, *[5] * len(unused)])
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 2)
    metadata(writer)
    for key in [key for key in writer.kv_data[0] if key.startswith(tuple(lacks) or ("\0",))]:
        del writer.kv_data[0][key]

    def put(name: str, weight: np.ndarray) -> None:
        if not name.startswith(tuple(lacks) or ("\0",)):
            writer.add_tensor(name, np.ascontiguousarray(weight))

    def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
        return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)

    weights = {name: weight.detach().float().numpy() for name, weight in model.state_dict().items()}
    put("token_embd.weight", weights["model.embed_tokens.weight"])
    put("output_norm.weight", weights["model.norm.weight"])
    put("output.weight", weights["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in NAMES.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            put(f"blk.{layer}.{theirs}.weight", permuted(weight, heads[theirs]) if theirs in heads else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
