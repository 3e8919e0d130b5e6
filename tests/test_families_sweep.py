"""Every causal model type of the installed transformers, built tiny: equal to the plain model, or refused in one line.

``python tests/test_families_sweep.py`` prints the three lists of docs/engine.md.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, PAD, generate_logits, give_character, random_prompt
from tiny_models import REFUSED as REFUSED_FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lazybench import LazyLLM, PruningSchedule, UserError

MOST_PARAMETERS = 8_000_000  # more is not tiny
# what families call a size; each takes those that its config has
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "dim", "kv_lora_rank", "q_lora_rank"), 32),
    **dict.fromkeys(("intermediate_size", "d_ff", "dff", "dim_ff", "ff_dim", "ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_encoder_layers", "num_decoder_layers"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "num_experts_per_token", "attn_layer_period"), 2),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head"), 8),
    **dict.fromkeys(("head_dim", "d_kv", "dim_head", "qk_nope_head_dim", "v_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "global_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "encoder_ffn_dim", "index_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "vocab_size_per_layer_input"), 128),
    "vocab_size": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
    "sliding_window": 6,
    "is_decoder": True,
    "use_cache": True,
}
# whose parts must fit together in a way of their own; the families of the other tests come as they are there
SHAPES: dict[str, dict[str, Any]] = {
    "dbrx": {
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
    },
    "dots1": {"n_shared_experts": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "zaya": {"num_experts_per_tok": 1},
    **REFUSED_FAMILIES,
    **FAMILIES,
}
PROMPT = random_prompt(17, seed=1)
EQUAL, REFUSED, NOT_BUILT = "equal", "refused", "not built"
DOC = Path(__file__).parent.parent / "docs/engine.md"


def sizes_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The tiny sizes of all that this config has, and of the configs in it."""
    known = config.to_dict()
    sizes = {config.attribute_map.get(name, name): value for name, value in SIZES.items()}
    fields = {name: value for name, value in sizes.items() if name in known}
    inner = {name: getattr(config, name, None) for name in config.sub_configs}
    if "kv_lora_rank" in fields and "num_key_value_heads" in fields:  # one latent state for all heads
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    return {**fields, **{name: sizes_of(sub) for name, sub in inner.items() if isinstance(sub, PreTrainedConfig)}}


def build(model_type: str) -> PreTrainedModel:
    """A tiny one. Raises: whatever the library does, or ValueError: it does not get tiny."""
    own = SHAPES.get(model_type, {})
    fields = own if model_type in FAMILIES else {**sizes_of(AutoConfig.for_model(model_type)), **own}
    config = AutoConfig.for_model(model_type, **fields)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters} parameters")
    torch.manual_seed(0)
    return give_character(AutoModelForCausalLM.from_config(config).eval())


def outcome(model_type: str) -> tuple[str, str]:
    """What became of it: equal, refused or not built, and why. Any other error passes through."""
    try:
        model = build(model_type)
        tokens, logits = generate_logits(model, PROMPT, 4)
        assert logits.isfinite().all()
    except Exception as error:  # the library's own, of a model that nobody pruned
        return NOT_BUILT, " ".join(f"{type(error).__name__}: {error}".split())
    try:
        with LazyLLM(model, PruningSchedule((0, 2), (1.0, 1.0))):
            unpruned_tokens, unpruned_logits = generate_logits(model, PROMPT, 4)
        with LazyLLM(model, PruningSchedule((0, 1, 2), (0.7, 0.7, 0.6))):
            pruned = generate_logits(model, PROMPT, 4)[1]
    except UserError as error:
        return REFUSED, str(error)
    assert unpruned_tokens.equal(tokens)
    torch.testing.assert_close(unpruned_logits, logits, rtol=0, atol=2e-4)
    assert pruned.shape == logits.shape
    assert pruned.isfinite().all()
    assert not pruned.equal(logits)
    return EQUAL, ""


@cache
def outcomes() -> dict[str, tuple[str, str]]:
    """Of every type; an error that is neither the library's nor one line stands here as itself."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: _outcome_or_fault(name) for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    finally:
        logging.disable(logging.NOTSET)


def _outcome_or_fault(name: str) -> tuple[str, str]:
    try:
        return outcome(name)
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}"


def lists() -> str:
    """The three lists as docs/engine.md has them."""
    found = outcomes()
    lines = []
    for kind, words in (
        (EQUAL, "With nothing pruned equal to the plain model"),
        (REFUSED, "Refused in one line"),
        (NOT_BUILT, "Not built tiny, so not known"),
    ):
        names = [f"`{name}`" for name, (what, _) in found.items() if what == kind]
        lines.append(f"- {words} ({len(names)}): {', '.join(names)}.")
    return "\n".join(lines)


@pytest.mark.slow
def test_every_causal_model_type_equals_the_plain_model_or_is_refused_in_one_line():
    faults = {name: why for name, (what, why) in outcomes().items() if what == "fault"}
    assert not faults
    refusals = [why for what, why in outcomes().values() if what == REFUSED]
    assert all("LazyLLM" in why and "\n" not in why for why in refusals)
    assert sum(what == EQUAL for what, _ in outcomes().values()) >= 100
    assert all(outcomes()[name][0] == EQUAL for name in FAMILIES if name in outcomes())


@pytest.mark.slow
def test_the_page_lists_what_the_sweep_found():
    assert (
        re.search(r"<!-- sweep -->\n\n(.*?)\n\n<!-- end -->", DOC.read_text(encoding="utf-8"), re.DOTALL)[1] == lists()
    )


if __name__ == "__main__":
    print(lists())
    if "-v" in sys.argv:
        print("\n".join(f"{name}: {what}: {why[:200]}" for name, (what, why) in outcomes().items() if what != EQUAL))
