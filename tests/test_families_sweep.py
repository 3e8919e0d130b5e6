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
from tiny_models import FAMILIES, generate_logits, random_prompt, tiny_config, tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lazybench import LazyLLM, PruningSchedule, UserError

MOST_PARAMETERS = 8_000_000  # more is not tiny
# whose parts must fit together in a way of their own
SHAPES: dict[str, dict[str, Any]] = {
    "dbrx": {
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
    },
    "dots1": {"n_shared_experts": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
PROMPT = random_prompt(17, seed=1)
EQUAL, REFUSED, NOT_BUILT = "equal", "refused", "not built"
DOC = Path(__file__).parent.parent / "docs/engine.md"


def build(model_type: str) -> PreTrainedModel:
    """A tiny one. Raises: whatever the library does, or ValueError: it does not get tiny."""
    own = SHAPES.get(model_type, {})
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(tiny_config(model_type, **own)).num_parameters()
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters} parameters")
    return tiny_model(model_type, **own)


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
    found = {}
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
            try:
                found[name] = outcome(name)
            except Exception as error:
                found[name] = "fault", f"{type(error).__name__}: {error}"
    logging.disable(logging.NOTSET)
    return found


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
