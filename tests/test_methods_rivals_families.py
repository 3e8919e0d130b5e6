"""The rivals on tiny models of each trait and other families in turn, and in every way to generate; refusals."""

from __future__ import annotations

import math
from itertools import cycle

import pytest
import torch
from test_families import PROMPTS, close, outputs
from tiny_models import FAMILIES, TRAITS, generate_logits, in_turn, random_prompt, shared_model
from tiny_requests import byte_tokenizer

from lazybench.errors import UserError
from lazybench.methods import build
from lazybench.methods.request import Request
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.places import windowed_layers
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer

PROMPT = PROMPTS[0]  # 17 tokens
SHORT = {"window": 2, "pool": 3}
CHUNKS = {"chunk": 2, "first": 1, "last": 2, "last_share": 0.0}
EVICTING = [
    build("fastkv", {"propagate": 0.6, "retain": 0.5, **SHORT}),
    build("claa", {"keep": 0.6, "layers": 2, "first_layers": 1, **SHORT}),
    build("snapkv", {"keep": 0.5, **SHORT}),
    build("h2o", {"keep": 0.5, "window": 2}),
]
BY_LENGTH = build("pyramid_infer", {"keep": 0.5, "first": 1, "least": 2})
FILTER = build("gemfilter", {"tokens": 9, "depth": 0.5})
METHODS = [
    build("fastkv", {"propagate": 0.6, "retain": 1.0, **SHORT}),
    build("claa", {"keep": 0.6, "retain": 1.0, "layers": 2, **SHORT}),
    build("uniprefill", {"mass": 0.6, "depths": [0.25, 0.75], "window": 2, "block": 2, "first": 2, "last": 2}),
    build("static_pruning", {"variant": "continue", "keep": 0.6}),
    build("taper", {"depths": [0.25, 0.5], "keep": [0.6, 0.7], "window": 4, **CHUNKS, "revive": 2, "every": 2}),
    BY_LENGTH,
    build("asl", {"tokens": 9, "depth": 0.5, "observed": 0.5, "below": 0.9, **SHORT}),
    build("spec_prefill", {"keep": 0.5, "lookahead": 2, "chunk": 2, "pool": 3}),
    build("oracle", {"keep": 0.5, "depth": 0.5, "answer_tokens": 2, "pool": 3, "last": 1}),
    *EVICTING,
    FILTER,
]
CLOSED = [family for family in FAMILIES if not shared_model(family)._can_set_attn_implementation()]
NO_EVICTION = [*CLOSED, "deepseek_v3"]  # whose heads share one latent state: none can evict alone
TRAIT = list(TRAITS.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_runs_on_every_family_or_is_refused(family: str) -> None:
    """Each method on one family of each trait; on other families three of them in turn."""
    model = shared_model(family)
    place = list(FAMILIES).index(family)
    turn = METHODS if family in TRAIT else [METHODS[(3 * place + more) % len(METHODS)] for more in range(3)]
    limits = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    for method in turn:
        no_eviction = method in EVICTING and family in NO_EVICTION
        if no_eviction or (method is FILTER and family in CLOSED):
            words = "no keys can be evicted" if no_eviction else "no query-key products"
            with pytest.raises(UserError, match=words):  # before anything is measured
                method.prepare(model)
        else:
            method.prepare(model)
            assert len(method.run(Request(model, byte_tokenizer(), PROMPT, limits, seed=0)).new_tokens) == 3


@pytest.mark.parametrize(
    ("family", "method"),
    zip((one for one in TRAIT if one not in NO_EVICTION), cycle([*EVICTING, BY_LENGTH]), strict=False),
)
def test_prompts_of_equal_length_are_each_alone(family, method):
    """Where what stays hangs on the length, and where keys are evicted alike in all rows."""
    model, prompts = shared_model(family), [random_prompt(17, seed) for seed in (4, 5)]
    with Pruned(model, method.for_model(model)):
        _, logits = generate_logits(model, torch.cat(prompts), 4)
        for row, prompt in enumerate(prompts):
            close(logits[:, row], generate_logits(model, prompt, 4)[1][:, 0])


@pytest.mark.parametrize("family", in_turn(5))
def test_keys_are_evicted_where_the_family_lets_the_engine_see_them(family):
    model = shared_model(family)
    policy = Policy(retention=PerHead(AttentionScorer(window=4), Ratio(0.5, of="context"), last=4))
    if family in NO_EVICTION:
        with pytest.raises(UserError, match="no keys can be evicted"):
            outputs(model, PROMPT, policy)
        return
    with Pruned(model, policy) as run:
        logits, cache = generate_logits(model, PROMPT, 8)[1], run._cache
    plain = outputs(model, PROMPT, None)[1]
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
