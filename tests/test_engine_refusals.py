"""Models, schedules and calls that pruning cannot serve: one line that says why, never a wrong run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import REFUSED, SINGLE_ONLY, left_padded, random_prompt, shared_model, tiny_model
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.methods.fastkv import FastKV
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.taper import Taper
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy

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
        (lambda model: model(PROMPTS[0]), r"logits_to_keep=0, the default.*generate\(\), or pass logits_to_keep=1"),
        (lambda model: model(PROMPTS[0], logits_to_keep=1, output_router_logits=True), "output_router_logits"),
        (lambda model: model(PROMPTS[0], logits_to_keep=1, output_anything=True), "output_anything"),
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
        "router logits",
        "any other output",
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


def test_outputs_that_the_config_asks_for_are_refused_too():
    model = tiny_model("qwen2_moe", output_router_logits=True)
    with LazyLLM(model, PRUNED), pytest.raises(UserError, match="output_router_logits=True"):
        model.generate(PROMPTS[0], max_new_tokens=2)


def test_outputs_that_nobody_named_are_refused_where_they_come_out():
    model = tiny_model("llama")
    model.register_forward_hook(lambda _, __, output: {**output, "of_each_token": (torch.zeros(1, 17, 1),)})
    with LazyLLM(model, PRUNED), pytest.raises(UserError, match="of_each_token"):
        model(PROMPTS[0], logits_to_keep=1)


class Adapted(torch.nn.Module):
    """What PEFT's models look like from outside."""

    def get_base_model(self) -> PreTrainedModel:
        return tiny_model("llama")


@pytest.mark.parametrize(
    ("wrapped", "way"),
    [
        (Adapted, r"model\.get_base_model\(\)"),
        (lambda: torch.compile(tiny_model("llama")), r"model\._orig_mod"),
        (lambda: torch.nn.DataParallel(tiny_model("llama")), r"model\.module"),
    ],
    ids=["PEFT", "compiled", "DataParallel"],
)
def test_a_model_inside_another_is_refused_with_the_way_out(wrapped, way):
    with pytest.raises(UserError, match=way):
        LazyLLM(wrapped(), PRUNED)


def test_a_model_compiled_in_place_is_refused():
    model = tiny_model("llama")
    model.compile()
    with pytest.raises(UserError, match=r"model\.compile\(\)"):
        LazyLLM(model, PRUNED)


@pytest.mark.parametrize(
    ("method", "name"), [(Taper(), "Taper"), (FastKV(), "FastKV"), (LazyLLMMethod(PRUNED), "LazyLLM")], ids=str
)
def test_refusals_name_the_method_that_was_asked_for(method, name):
    model = tiny_model("llama")
    policy = method.for_model(model)
    calls = [
        lambda: Pruned(torch.nn.Linear(1, 1), policy),
        lambda: Pruned(tiny_model("gpt_neo"), policy),
        lambda: Pruned(tiny_model("llama").train(), policy),
        lambda: _run(model, policy, lambda: model(PROMPTS[0])),
        lambda: _run(model, policy, lambda: model(PROMPTS[0], logits_to_keep=1, output_attentions=True)),
        lambda: _run(model, policy, lambda: call_of(prompt_lookup_num_tokens=2)(model)),
        lambda: _run(model, policy, lambda: call_of(prefill_chunk_size=4)(model)),
        lambda: _run(model, policy, lambda: call_of(use_cache=False)(model)),
        lambda: _run(model, policy, lambda: call_of(cache_implementation="static")(model)),
        lambda: _run(model, policy, lambda: Pruned(model, policy).__enter__()),
    ]
    for call in calls:
        with pytest.raises(UserError, match=rf"\b{name}\b") as refused:
            call()
        assert name == "LazyLLM" or "LazyLLM" not in str(refused.value)


def _run(model: PreTrainedModel, policy: Policy, call: Callable[[], Any]) -> None:
    with Pruned(model, policy):
        call()


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
