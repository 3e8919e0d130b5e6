"""The rivals on tiny models of each trait and other families in turn, and in every way to generate; refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_families import PROMPTS, close, outputs
from tiny_models import (
    FAMILIES,
    TRAITS,
    generate_logits,
    in_turn,
    random_prompt,
    shared_model,
)
from tiny_requests import byte_tokenizer
from transformers import PreTrainedModel

from lazybench.errors import UserError
from lazybench.methods.asl import ASL
from lazybench.methods.base import Method, PolicyMethod
from lazybench.methods.claa import CLAA
from lazybench.methods.fastkv import FastKV
from lazybench.methods.gemfilter import GemFilter
from lazybench.methods.h2o import H2O
from lazybench.methods.oracle import Oracle
from lazybench.methods.pyramid_infer import PyramidInfer
from lazybench.methods.request import Request
from lazybench.methods.snapkv import SnapKV
from lazybench.methods.spec_prefill import SpecPrefill
from lazybench.methods.static_pruning import StaticPruning
from lazybench.methods.taper import Taper
from lazybench.methods.uniprefill import UniPrefill
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.places import windowed_layers
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer

PROMPT = PROMPTS[0]  # 17 tokens
EVICTING: list[PolicyMethod] = [
    FastKV(0.6, 0.5, window=2, pool=3),
    CLAA(0.6, layers=2, first_layers=1, window=2, pool=3),
    SnapKV(0.5, window=2, pool=3),
    H2O(0.5, window=2),
]
PRUNING: list[PolicyMethod] = [
    FastKV(0.6, 1.0, window=2, pool=3),
    CLAA(0.6, 1.0, layers=2, window=2, pool=3),
    UniPrefill(0.6, (0.25, 0.75), window=2, block=2, first=2, last=2),
    StaticPruning("continue", 0.6),
]
TAPER = Taper(
    depths=(0.25, 0.5), keep=(0.6, 0.7), window=4, chunk=2, first=1, last=2, last_share=0.0, revive=2, every=2
)
BY_LENGTH = PyramidInfer(0.5, first=1, least=2)
BY_PROMPT = ASL(9, depth=0.5, observed=0.5, below=0.9, window=2, pool=3)
CHOSEN_BEFORE: list[Method] = [SpecPrefill(0.5, None, 2, 2, 3), Oracle(0.5, 0.5, 2, 3, 1)]
FILTER = GemFilter(9, depth=0.5)
CLOSED = sorted(family for family in FAMILIES if not shared_model(family)._can_set_attn_implementation())
LATENT = ["deepseek_v3"]  # all heads share one latent state: no head can evict alone
OPEN = sorted(set(FAMILIES) - {*CLOSED, *LATENT})
TRAIT = list(TRAITS.values())
METHODS: list[Method] = [*PRUNING, TAPER, BY_LENGTH, BY_PROMPT, *CHOSEN_BEFORE, *EVICTING, FILTER]


def paired(families: list[str], methods: list[Any]) -> Any:
    """Each method with one of the families, and each family with one of the methods."""
    pairs = [
        (families[place % len(families)], methods[place % len(methods)])
        for place in range(max(len(families), len(methods)))
    ]
    return pytest.mark.parametrize(("family", "method"), pairs, ids=[f"{family}-{m.name}" for family, m in pairs])


def under(model: PreTrainedModel, method: PolicyMethod) -> Pruned:
    return Pruned(model, method.policy(model.config.get_text_config()))


def answer(method: Method, model: PreTrainedModel) -> torch.Tensor:
    method.prepare(model)
    limits = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    return method.run(Request(model, byte_tokenizer(), PROMPT, limits, seed=0)).new_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_runs_on_every_family_or_is_refused(family: str) -> None:
    """Each method on one family of each trait; on other families three of them in turn."""
    model = shared_model(family)
    place = list(FAMILIES).index(family)
    turn = METHODS if family in TRAIT else [METHODS[(3 * place + more) % len(METHODS)] for more in range(3)]
    for method in turn:
        no_eviction = method in EVICTING and family in (*CLOSED, *LATENT)
        if no_eviction or (method is FILTER and family in CLOSED):
            words = "no keys can be evicted" if no_eviction else "no query-key products"
            with pytest.raises(UserError, match=words):  # before anything is measured
                method.prepare(model)
        else:
            assert len(answer(method, model)) == 3


OPEN_TRAIT = [family for family in TRAIT if family in OPEN]


@paired(OPEN_TRAIT, [*EVICTING, BY_LENGTH])
def test_prompts_of_equal_length_are_each_alone(family: str, method: PolicyMethod) -> None:
    """Where what stays hangs on the length, and where keys are evicted alike in all rows."""
    model, prompts = shared_model(family), [random_prompt(17, seed) for seed in (4, 5)]
    with under(model, method):
        _, logits = generate_logits(model, torch.cat(prompts), 4)
        for row, prompt in enumerate(prompts):
            close(logits[:, row], generate_logits(model, prompt, 4)[1][:, 0])


@pytest.mark.parametrize("family", in_turn(5))
def test_keys_are_evicted_where_the_family_lets_the_engine_see_them(family):
    model = shared_model(family)
    policy = Policy(retention=PerHead(AttentionScorer(window=4), Ratio(0.5, of="context"), last=4))
    if not model._can_set_attn_implementation() or family == "deepseek_v3":  # all its heads share a latent state
        with pytest.raises(UserError, match="no keys can be evicted"):
            outputs(model, PROMPTS[0], policy)
        return
    with Pruned(model, policy) as run:
        logits, cache = generate_logits(model, PROMPTS[0], 8)[1], run._cache
    plain = outputs(model, PROMPTS[0], None)[1]
    close(logits[0], plain[0])  # evicted once the prefill's attention is over
    windowed = windowed_layers(model.config)
    changed = (logits - plain).abs().max()
    assert changed < 1e-4 if len(windowed) == 4 else changed > 1e-3
    kept = [17 if layer in windowed else math.ceil(0.5 * 17) for layer in range(4)]
    assert [17 - cache.arena(layer).evicted for layer in range(4)] == kept
    # a layer with a window holds what its next token can see
    window = getattr(model.config, "sliding_window", None) or getattr(model.config, "attention_chunk_size", None) or 0
    held = [min(17, window - 1) if layer in windowed else rows for layer, rows in enumerate(kept)]
    per_layer = [cache.arena(layer).bytes_per_slot * rows for layer, rows in enumerate(held)]
    assert run.trace.kv_bytes[0] == sum(per_layer)
