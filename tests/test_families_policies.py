"""Policies other than LazyLLM's, on tiny models of each trait: nothing revived, MLPs saved, keys evicted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from test_families import PROMPTS, close, layers_of, outputs
from tiny_models import SINGLE_ONLY, generate_logits, in_turn, left_padded, shared_model
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.errors import UserError
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.engine import Pruned
from lazybench.pruning.layers import find_mlp
from lazybench.pruning.places import windowed_layers
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer


def pruned_outputs(
    model: PreTrainedModel, prompt: Tensor, policy: Policy, **kwargs: Any
) -> tuple[Pruned, LazyCache, Tensor, Tensor]:
    """The context and its cache, tokens and logits of eight greedy steps."""
    with Pruned(model, policy) as run:
        tokens, logits = generate_logits(model, prompt, 8, **kwargs)
        cache = run._cache
    assert cache is not None
    return run, cache, tokens, logits


WINDOWED = Policy(
    (0, 2),
    AttentionScorer(window=4, pool=3),
    (Ratio(0.6),) * 2,
    first=1,
    last=4,
    before_mlp=True,
)


@pytest.mark.parametrize("family", dict.fromkeys([*in_turn(4), "llama4_text"]))  # whose experts give their output flat
def test_a_policy_that_never_revives_runs(family):
    """A window of queries, pooled scores, a spared first token, the pruning layers' MLP for what goes on alone."""
    model = shared_model(family)
    alone = [pruned_outputs(model, prompt, WINDOWED) for prompt in PROMPTS]
    for (run, cache, _, logits), prompt in zip(alone, PROMPTS, strict=True):
        entered = prompt.shape[1]
        after = math.ceil(0.6 * entered)
        assert run.trace.steps[0].computed == (entered, after, math.ceil(0.6 * after - 1e-9))
        assert run.trace.steps[0].mlp_saved == (find_mlp(layers_of(model)[0]) is not None)
        assert not cache._aux
        assert [step.computed for step in run.trace.steps[1:]] == [(1, 1, 1)] * 7
        assert (logits - outputs(model, prompt, None)[1]).abs().max() > 1e-3
    if alone[0][0].trace.steps[0].mlp_saved:  # saving the MLP of what is dropped changes nothing
        whole_run, _, _, whole = pruned_outputs(model, PROMPTS[0], replace(WINDOWED, before_mlp=False))
        assert not whole_run.trace.steps[0].mlp_saved
        close(alone[0][3], whole)
    if family in SINGLE_ONLY:
        return
    batch, mask = left_padded(PROMPTS)
    _, _, tokens, logits = pruned_outputs(model, batch, WINDOWED, attention_mask=mask)
    for row, (prompt, (_, _, tokens_alone, logits_alone)) in enumerate(zip(PROMPTS, alone, strict=True)):
        assert tokens[row, batch.shape[1] :].equal(tokens_alone[0, prompt.shape[1] :])
        close(logits[:, row], logits_alone[:, 0])


@pytest.mark.parametrize("family", in_turn(5))
def test_keys_are_evicted_where_the_family_lets_the_engine_see_them(family):
    model = shared_model(family)
    policy = Policy.nothing_pruned(retention=PerHead(AttentionScorer(window=4), Ratio(0.5, of="context"), last=4))
    if not model._can_set_attn_implementation() or family == "deepseek_v3":  # all its heads share a latent state
        with pytest.raises(UserError, match="no keys can be evicted"):
            pruned_outputs(model, PROMPTS[0], policy)
        return
    run, cache, _, logits = pruned_outputs(model, PROMPTS[0], policy)
    close(logits[0], outputs(model, PROMPTS[0], None)[1][0])  # evicted once the prefill's attention is over
    windowed = windowed_layers(model.config)
    changed = (logits - outputs(model, PROMPTS[0], None)[1]).abs().max()
    assert changed < 1e-4 if len(windowed) == 4 else changed > 1e-3
    kept = [17 if layer in windowed else math.ceil(0.5 * 17) for layer in range(4)]
    assert [17 - cache.arena(layer).evicted for layer in range(4)] == kept
    # a layer with a window holds what its next token can see
    window = getattr(model.config, "sliding_window", None) or getattr(model.config, "attention_chunk_size", None) or 0
    held = [min(17, window - 1) if layer in windowed else rows for layer, rows in enumerate(kept)]
    per_layer = [cache.arena(layer).bytes_per_slot * rows for layer, rows in enumerate(held)]
    assert run.trace.kv_bytes[0] == sum(per_layer)
