"""Models, schedules and calls that pruning cannot serve: one line that says why, never a wrong run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import REFUSED, SINGLE_ONLY, left_padded, random_prompt, shared_model, tiny_model
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.pruning.engine import Pruned

PRUNED = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.6))
PROMPTS = [random_prompt(tokens, seed) for seed, tokens in enumerate((17, 11, 14))]


def call_of(**kwargs: Any) -> Callable[[PreTrainedModel], Any]:
    return lambda model: model.generate(PROMPTS[0], attention_mask=torch.ones_like(PROMPTS[0]), **kwargs)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (call_of(max_new_tokens=2, prefill_chunk_size=4), "prefill_chunk_size"),
        (call_of(max_new_tokens=4, prompt_lookup_num_tokens=2), "assisted"),
        (call_of(max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True), "output_hidden_states"),
        (call_of(max_new_tokens=2, use_cache=False), "use_cache"),
        (lambda model: model(PROMPTS[0]), "logits_to_keep"),
        (lambda model: model(PROMPTS[0], labels=PROMPTS[0]), "labels"),
        (lambda model: model.generate(random_prompt(300, 0), max_new_tokens=1), "300"),
        (
            lambda model: model.generate(
                PROMPTS[0],
                attention_mask=torch.ones_like(PROMPTS[0]).index_fill(1, torch.tensor([16]), 0),
                max_new_tokens=1,
            ),
            "left",
        ),
    ],
    ids=[
        "chunked prefill",
        "assisted",
        "hidden states",
        "no cache",
        "all logits",
        "labels",
        "too long",
        "right padding",
    ],
)
def test_calls_that_pruning_cannot_serve_are_refused_in_one_line(call, reason):
    model = shared_model("llama")
    with LazyLLM(model, PRUNED), pytest.raises(UserError, match=reason) as refused:
        call(model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda model: LazyLLM(model, 0.5), "schedule=0.5 must be a PruningSchedule"),
        (lambda model: LazyLLM(model, None), "schedule=None must be a PruningSchedule"),
        (lambda model: Pruned(model, PRUNED), "must be a Policy; a schedule goes into LazyLLM"),
        (lambda model: PruningSchedule.paper(model.config), "num_layers=.* must be a whole number"),
        (lambda model: PruningSchedule.paper(8, keep=0.7), "pruning.keep=0.7 must be a list"),
        (lambda model: LazyLLM(model, PRUNED).trace.prompt_tokens_computed_mean, "nothing was generated"),
        (lambda model: LazyLLM(model, PRUNED).trace.prompt_tokens_computed_by_stage, "nothing was generated"),
    ],
)
def test_what_is_no_schedule_and_a_trace_of_nothing_are_one_line(made, words):
    with pytest.raises(UserError, match=words) as refused:
        made(shared_model("llama"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_run_are_refused(family):
    with pytest.raises(UserError, match=family), LazyLLM(tiny_model(family), PRUNED):
        pass


@pytest.mark.parametrize("family", sorted(SINGLE_ONLY))
def test_batches_of_a_family_without_padding_are_refused(family):
    model = shared_model(family)
    batch, mask = left_padded(PROMPTS)
    with LazyLLM(model, PRUNED), pytest.raises(UserError, match=family):
        model.generate(batch, attention_mask=mask, max_new_tokens=1)


def test_schedules_too_deep_and_nested_contexts_are_refused():
    model = shared_model("llama")
    with pytest.raises(UserError, match="model of 4 layers"), LazyLLM(model, PruningSchedule((3,), (0.5,))):
        pass
    with LazyLLM(model, PRUNED), pytest.raises(UserError), LazyLLM(model, PRUNED):
        pass
    assert model.generate(PROMPTS[0], max_new_tokens=8, min_new_tokens=8).shape[1] == PROMPTS[0].shape[1] + 8
