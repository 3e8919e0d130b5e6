"""Tiny models of every family that the engine supports, with random weights: no download, milliseconds per pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 128
PAD = 0
SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD}
LLAMA: dict[str, Any] = {
    **SPECIAL,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2: dict[str, Any] = {**SPECIAL, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
HEADS_ALONE: dict[str, Any] = {**SPECIAL, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
WINDOW = {"sliding_window": 6}
HEAD_DIM = {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, **WINDOW},
    "ministral": {**LLAMA, **WINDOW, **HEAD_DIM},
    "mixtral": {**LLAMA, **WINDOW, "num_local_experts": 4},
    "qwen2": {**LLAMA, **WINDOW, "use_sliding_window": True, "max_window_layers": 2},
    "qwen2_moe": {**LLAMA, **EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3": {**LLAMA, **HEAD_DIM},
    "qwen3_moe": {**LLAMA, **EXPERTS, **HEAD_DIM},
    "gemma": {**LLAMA, **HEAD_DIM},
    "gemma2": {
        **LLAMA,
        **WINDOW,
        **HEAD_DIM,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "attn_implementation": "eager",  # SDPA would leave the softcap out
    },
    "gemma3_text": {
        **LLAMA,
        **WINDOW,
        **HEAD_DIM,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "phi": LLAMA,
    "phi3": {**LLAMA, **WINDOW},
    "gpt_neox": LLAMA,
    "stablelm": LLAMA,
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "olmo3": {**LLAMA, **WINDOW},
    "cohere": {**LLAMA, "logit_scale": 1.0},
    "cohere2": {**LLAMA, **WINDOW, "logit_scale": 1.0},
    "starcoder2": {**LLAMA, **WINDOW},
    "granite": LLAMA,
    "smollm3": LLAMA,
    "glm4": {**LLAMA, **HEAD_DIM},
    "nemotron": LLAMA,
    "exaone4": {**LLAMA, **WINDOW, "sliding_window_pattern": 4},
    "gpt_oss": {**LLAMA, **WINDOW, **HEAD_DIM, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {
        **LLAMA,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
    },
    "gemma4_text": {
        **LLAMA,
        **WINDOW,
        **HEAD_DIM,
        "global_head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "llama4_text": {
        **LLAMA,
        **HEAD_DIM,
        "intermediate_size_mlp": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 64,
    },
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gptj": {**GPT2, "rotary_dim": 4},
    "opt": {**HEADS_ALONE, "ffn_dim": 64, "max_position_embeddings": 256, "word_embed_proj_dim": 32},
    "falcon": HEADS_ALONE,
    "gpt_neox_japanese": {**HEADS_ALONE, "intermediate_multiple_size": 2, "max_position_embeddings": 256},
    "bloom": {**SPECIAL, "hidden_size": 32, "n_layer": 4, "n_head": 4},
}
# one family for each trait of an architecture that the engine treats in a way of its own
TRAITS = {
    "grouped queries": "llama",
    "a window in every layer": "mistral",
    "windows in some layers": "gemma3_text",
    "softcap": "gemma2",
    "sinks": "gpt_oss",
    "experts": "qwen3_moe",
    "one latent state for all heads": "deepseek_v3",
    "positions embedded": "gpt2",
    "attention of its own": "gptj",
    "biases by distance": "bloom",
}
TURNS = 6
REFUSED: dict[str, dict[str, Any]] = {
    "codegen": {**GPT2, "rotary_dim": 4, "n_ctx": 256},
    "falcon_alibi": {**HEADS_ALONE, "alibi": True},
    "gpt_neo": {
        **SPECIAL,
        "hidden_size": 32,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "max_position_embeddings": 256,
        "window_size": 8,
    },
    "xglm": {**SPECIAL, "d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64},
}


def in_turn(turn: int) -> list[str]:
    """The families of one of ``TURNS`` tests: one of each trait, and every other family in one test of all."""
    others = [family for family in FAMILIES if family not in TRAITS.values()]
    return [*TRAITS.values(), *others[turn::TURNS]]


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A model of ``family`` with random weights, in evaluation mode, that never stops by itself.

    Its matrices are drawn large enough that attention differs from token to token, and its biases,
    norms and sinks are not the zeros and ones of a fresh model: what an engine forgets shows.
    """
    torch.manual_seed(seed)
    fields = {**FAMILIES, **REFUSED}[family]
    config = AutoConfig.for_model(family.removesuffix("_alibi"), **{**fields, **overrides})
    return give_character(AutoModelForCausalLM.from_config(config).eval()).to(dtype)


def give_character(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights drawn large, as ``tiny_model`` has them, and a generation that no token ends."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.std() < 0.05:
                parameter.mul_(8.0)
            elif parameter.dim() < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
        # the padding token may be generated like any other; all zeros, it would attend to every token alike
        model.get_input_embeddings().weight[PAD].normal_(0.0, 0.16)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model


@cache
def shared_model(family: str) -> PreTrainedModel:
    """The same, built once for all tests of a process; a test must leave it as it was."""
    return tiny_model(family)


def generate_logits(model: PreTrainedModel, prompt: Tensor, new_tokens: int, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """What ``model.generate`` writes greedily, and each step's output embedding in the model's precision.

    Args:
        prompt: (batch, prompt tokens).

    Returns:
        (batch, prompt tokens + new tokens) token ids and (new tokens, batch, vocabulary) logits.
    """
    logits: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, __, output: logits.append(output[:, -1]))
    try:
        mask = kwargs.pop("attention_mask", torch.ones_like(prompt))
        tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, **kwargs)
    finally:
        hook.remove()
    return tokens, torch.stack(logits)


def random_prompt(tokens: int, seed: int) -> Tensor:
    """(1, tokens) token ids without the special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (1, tokens), generator=generator)


def left_padded(prompts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts (1, tokens) as one batch: token ids and attention mask, both (prompts, longest)."""
    longest = max(prompt.shape[1] for prompt in prompts)
    rows = [nn.functional.pad(prompt, (longest - prompt.shape[1], 0), value=PAD) for prompt in prompts]
    masks = [nn.functional.pad(torch.ones_like(prompt), (longest - prompt.shape[1], 0)) for prompt in prompts]
    return torch.cat(rows), torch.cat(masks)


class Float64Rotary(nn.Module):
    """Llama's rotary embedding without its rounding to float32."""

    def __init__(self, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)  # (head_dim / 2,)

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)  # (batch, tokens, head_dim)
        return angles.cos(), angles.sin()


def float64_model(family: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A Llama-class model that really runs in float64.

    The library's norms and rotary embedding round to float32 whatever the weights are; here they don't,
    so that two ways to the same logits may be compared to many digits.
    """
    model = tiny_model(family, torch.float64, seed, **overrides)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                exact = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                exact.weight.data.copy_(child.weight.data)
                setattr(module, name, exact)
    head_dim = model.model.layers[0].self_attn.head_dim
    model.model.rotary_emb = Float64Rotary(head_dim)
    return model
