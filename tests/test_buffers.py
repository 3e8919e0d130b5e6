"""How large the engine's buffers are, beside plain ``generate``'s."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import At, Policy

WINDOW = 32
PROMPT = random_prompt(200, seed=1)
PRUNED = Policy(At((1,)), budget=Ratio(0.4))  # never revives
POLICIES = pytest.mark.parametrize("policy", [Policy.nothing_pruned(), PRUNED], ids=["nothing pruned", "pruned"])


def cache_after(model: PreTrainedModel, context: AbstractContextManager, new_tokens: int) -> Any:
    with context:
        output = model.generate(
            PROMPT,
            attention_mask=torch.ones_like(PROMPT),
            max_new_tokens=new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
        )
    return output.past_key_values


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("new_tokens", [1, 40])
@POLICIES
def test_a_layer_with_a_window_holds_no_more_than_it_where_nothing_comes_back(family, new_tokens, policy):
    model = tiny_model(family, sliding_window=WINDOW, max_position_embeddings=512)
    plain = [layer.keys.shape[2] for layer in cache_after(model, nullcontext(), new_tokens).layers]
    cache = cache_after(model, Pruned(model, policy), new_tokens)
    windowed = [rows == WINDOW - 1 for rows in plain]
    assert any(windowed)
    for layer, rows in enumerate(plain):
        arena = cache.arena(layer)
        held = cache._stage_of_layer[layer].end - arena.forgotten
        assert held <= (rows * 9 // 8 if windowed[layer] else rows)
        assert arena._buffers[0].shape[4] <= held + held // 8 + 17 if arena.forgotten else rows + rows // 8 + 17
    row_bytes = cache.arena(0).bytes_per_slot
    assert cache.kv_bytes <= sum(rows + rows // 8 for rows in plain) * row_bytes


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "gpt_oss"])
@POLICIES
def test_what_is_older_than_the_window_is_not_missed(family, policy, monkeypatch):
    model = tiny_model(family)
    prompts, mask = left_padded([random_prompt(60, seed=2), random_prompt(31, seed=3)])

    def outputs() -> list[Tensor]:
        with Pruned(model, policy):
            one = generate_logits(model, PROMPT, 30)
            batch = generate_logits(model, prompts, 30, attention_mask=mask)
            first = model.generate(PROMPT, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
            longer = torch.cat([first.sequences, random_prompt(9, seed=5)], dim=1)
            turn = model.generate(longer, max_new_tokens=9, do_sample=False, past_key_values=first.past_key_values)
        return [*one, *batch, turn]

    measured = outputs()
    monkeypatch.setattr("lazybench.pruning.kv.Arena.forget", lambda *_: None)
    for expected, found in zip(outputs(), measured, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_layer_with_a_window_keeps_all_where_tokens_come_back():
    model = tiny_model("mistral")
    cache = cache_after(model, LazyLLM(model, PruningSchedule((1,), (0.4,))), 4)
    assert all(cache.arena(layer).forgotten == 0 for layer in range(4))
