"""Tiny models of every family that the engine supports, with random weights: no download, milliseconds per pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 128
PAD = 0
# what families call a size; each takes those that its config has
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "dim"), 32),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "d_ff", "dff", "dim_ff", "ff_dim", "ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_encoder_layers", "num_decoder_layers"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "num_experts_per_token", "attn_layer_period"), 2),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head"), 8),
    **dict.fromkeys(("head_dim", "d_kv", "dim_head", "qk_nope_head_dim", "v_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "global_head_dim", "qk_rope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "encoder_ffn_dim", "decoder_ffn_dim", "index_head_dim"), 16),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 256),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
    "sliding_window": 6,
    "logit_scale": 1.0,
    "is_decoder": True,
    "use_cache": True,
}
WINDOWS_IN_TURN = {"layer_types": ["sliding_attention", "full_attention"] * 2}
# every family that the tests name, and what else its config says
PLAIN = (
    *("llama", "mistral", "ministral", "mixtral", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "phi", "phi3"),
    *("gpt_neox", "stablelm", "olmo", "olmo2", "olmo3", "cohere", "cohere2", "starcoder2", "granite", "glm4"),
    *("nemotron", "exaone4", "gpt_oss", "gpt2", "opt", "falcon", "bloom"),
)
FAMILIES: dict[str, dict[str, Any]] = {
    **{family: {} for family in PLAIN},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "gemma2": {"attn_logit_softcapping": 2.0, "attn_implementation": "eager"},  # SDPA would leave the softcap out
    "gemma3_text": WINDOWS_IN_TURN,
    "smollm3": {"sliding_window": None},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "gemma4_text": {**WINDOWS_IN_TURN, "global_head_dim": 16},
    "llama4_text": {"num_experts_per_tok": 1, "attention_chunk_size": 64},
    "gpt_bigcode": {"num_key_value_heads": 1},
    "gptj": {"rotary_dim": 4},
    "gpt_neox_japanese": {"intermediate_multiple_size": 2},
}
REFUSED: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 4},
    "falcon_alibi": {"alibi": True},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 8},
    "xglm": {},
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


def in_turn(turn: int) -> list[str]:
    """The families of one of ``TURNS`` tests: one of each trait, and every other family in one test of all."""
    others = [family for family in FAMILIES if family not in TRAITS.values()]
    return [*TRAITS.values(), *others[turn::TURNS]]


def sizes_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The tiny sizes of all that this config has, and of the configs in it."""
    known = config.to_dict()
    sizes = {config.attribute_map.get(name, name): value for name, value in SIZES.items()}
    fields = {name: value for name, value in sizes.items() if name in known}
    inner = {name: getattr(config, name, None) for name in config.sub_configs}
    if "kv_lora_rank" in fields and "num_key_value_heads" in fields:  # one latent state for all heads
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    return {**fields, **{name: sizes_of(sub) for name, sub in inner.items() if isinstance(sub, PreTrainedConfig)}}


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    name, own = family.removesuffix("_alibi"), {**REFUSED, **FAMILIES}.get(family, {})
    return AutoConfig.for_model(name, **{**sizes_of(AutoConfig.for_model(name)), **own, **overrides})


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A model of ``family`` with random weights, in evaluation mode, that never stops by itself.

    Its matrices are drawn large enough that attention differs from token to token, and its biases,
    norms and sinks are not the zeros and ones of a fresh model: what an engine forgets shows.
    """
    torch.manual_seed(seed)
    config = tiny_config(family, **overrides)
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
