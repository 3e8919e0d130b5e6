"""Faults of the engine that gave a wrong number without an error, each held by a test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import random_prompt, shared_model, tiny_model
from torch import Tensor
from transformers import Cache, PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.attention import lazy_attention
from lazybench.pruning.importance import last_query_importance
from lazybench.pruning.legacy import _importance_with_mask
from lazybench.pruning.masks import CAUSAL, Visibility
from lazybench.pruning.stage import Placement, Stage
from lazybench.pruning.step import LayerView, Step

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
PROMPT = random_prompt(20, seed=3)


def generate(model: PreTrainedModel, prompt: Tensor, new_tokens: int, cache: Cache | None = None) -> Any:
    """``model.generate``, greedy, with its cache in what it returns."""
    kwargs = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": new_tokens, "do_sample": False}
    return model.generate(prompt, past_key_values=cache, return_dict_in_generate=True, **kwargs)


# ---- float16


def huge_scores(tokens: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (1, heads, tokens, 16) in float16, whose scores all lie near 2 ** 18 = 262,144."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, tokens, 16, generator=generator)
    key, value = torch.randn(2, 1, 2, tokens, 16, generator=generator).unbind()
    query[..., 0] = key[..., 0] = 512.0
    return query.half(), key.half(), value.half()


@pytest.mark.parametrize(
    ("softcap", "sink"), [(None, None), (1e5, None), (None, 65_504.0), (1e5, 57_536.0)]
)  # a sink as large as the capped scores
def test_scores_beyond_float16_select_what_float32_selects(softcap, sink):
    sinks = None if sink is None else torch.full((4,), sink)
    query, key, value = huge_scores()
    assert (query @ key.repeat_interleave(2, dim=1).transpose(2, 3)).isinf().all()
    half = last_query_importance(query, key, 0.25, None, softcap, None if sinks is None else sinks.half())
    single = last_query_importance(query.float(), key.float(), 0.25, None, softcap, sinks)
    assert half.isfinite().all()
    assert single.std() > 0
    assert torch.equal(half.topk(20).indices, single.topk(20).indices)
    if softcap or sinks is not None:  # the attention itself is the engine's own there
        outputs = []
        for dtype in (torch.float16, torch.float32):
            place = Stage().append(40, torch.arange(40)[None], None, [40])
            step = Step(0, 40, place)
            view = LayerView(step, Visibility(CAUSAL, place.current, place.selected, None, True, 40), False)
            inputs = (states.to(dtype) for states in (query, key, value))
            outputs.append(lazy_attention(torch.nn.Module(), *inputs, view, scaling=0.25, softcap=softcap, s_aux=sinks))
        torch.testing.assert_close(outputs[0][0].float(), outputs[1][0], atol=2e-3, rtol=2e-3)


def test_families_with_ready_made_masks_do_not_overflow_either():
    query, key, _ = huge_scores()
    key = key.repeat_interleave(2, dim=1)
    for mask in (torch.ones(1, 1, 40, 40, dtype=torch.bool), torch.zeros(1, 1, 40, 40)):
        half = _importance_with_mask(query, key, mask, 0.25)
        single = last_query_importance(query.float(), key.float(), 0.25)
        assert torch.equal(half.topk(20).indices, single.topk(20).indices)


def selections(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The positions that each pruning of the prefill keeps, sorted."""
    chosen_at: list[list[int]] = []
    select = Stage.select

    def noted(stage: Stage, chosen: Tensor, counts: list[int], tokens: int) -> Placement:
        chosen_at.append(sorted(chosen[0].tolist()))
        return select(stage, chosen, counts, tokens)

    with monkeypatch.context() as patch, LazyLLM(model, PRUNED):
        patch.setattr(Stage, "select", noted)
        generate(model, PROMPT, 1)
    return chosen_at


def test_a_float16_model_with_large_key_biases_keeps_what_its_float32_twin_keeps(monkeypatch):
    half = tiny_model("gpt2", dtype=torch.float16)
    for block in half.transformer.h:
        attention = block.attn.c_attn  # one product for query, key and value: (32, 96)
        for column in (*range(0, 32, 8), *range(32, 64, 8)):  # the first of each head's eight dimensions
            attention.weight.data[:, column] = 0.0
            attention.bias.data[column] = 512.0
    single = tiny_model("gpt2")
    single.load_state_dict(half.state_dict())
    assert selections(half, monkeypatch) == selections(single, monkeypatch)


# ---- ragged batches


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "falcon"])
def test_rows_that_revive_different_numbers_leave_no_nan_in_the_cache(family):
    model = shared_model(family)
    alike = torch.cat([random_prompt(20, seed) for seed in (3, 4, 5)])
    computed: list[list[int]] = []
    select = Stage.select

    def noted(stage: Stage, *args: object) -> Placement:
        place = select(stage, *args)
        computed.append(place.computed)
        return place

    with pytest.MonkeyPatch.context() as patch, LazyLLM(model, PRUNED):
        patch.setattr(Stage, "select", noted)
        cache = generate(model, alike, 8).past_key_values
    assert any(len(set(counts)) > 1 for counts in computed)
    for layer in range(4):
        assert cache._keys[layer].isfinite().all()
        assert cache._values[layer].isfinite().all()
