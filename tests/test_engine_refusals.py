"""Models, policies and calls that pruning cannot serve: one line that says why, never a wrong run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import REFUSED, random_prompt, shared_model, tiny_model
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DynamicCache, GenerationConfig, PreTrainedModel, StaticCache

from lazybench import LazyLLM, PruningSchedule, UserError
from lazybench.methods.fastkv import FastKV
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.taper import Taper
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy

PRUNED = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.6))
PROMPTS = [random_prompt(tokens, seed) for seed, tokens in enumerate((17, 11, 14))]
PROMPT = PROMPTS[0]


def refused(call: Callable[[], object], words: str) -> str:
    with pytest.raises(UserError, match=words) as error:
        call()
    return str(error.value)


def call_of(**kwargs: Any) -> Callable[[PreTrainedModel], Any]:
    options = {"attention_mask": torch.ones_like(PROMPT), "max_new_tokens": 4, **kwargs}
    return lambda model: model.generate(PROMPT, **options)


def in_training(model: PreTrainedModel) -> None:
    try:
        model.train()(PROMPT, logits_to_keep=1)
    finally:
        model.eval()


def by_its_own_config(model: PreTrainedModel) -> None:
    try:
        model.generation_config.prefill_chunk_size = 8
        model.generate(PROMPT, max_new_tokens=2)
    finally:
        model.generation_config.prefill_chunk_size = None


def in_two_calls(model: PreTrainedModel) -> None:
    cache = model(PROMPT[:, :8], logits_to_keep=1).past_key_values
    model(PROMPT[:, 8:], past_key_values=cache, logits_to_keep=1)


RETURNED = {"return_dict_in_generate": True}
CALLS: dict[str, tuple[Callable[[PreTrainedModel], Any], str]] = {
    "chunked prefill": (call_of(prefill_chunk_size=1), "prefill_chunk_size=1"),
    "chunked by a config": (call_of(generation_config=GenerationConfig(prefill_chunk_size=16)), "chunk_size=16"),
    "chunked by a config in its place": (
        lambda model: model.generate(PROMPT, GenerationConfig(prefill_chunk_size=4), max_new_tokens=2),
        "prefill_chunk_size=4",
    ),
    "chunked by the model's own": (by_its_own_config, "prefill_chunk_size=8"),
    "the rest of a prompt": (in_two_calls, "whole prompt at once"),
    "prompt lookup": (call_of(prompt_lookup_num_tokens=2), "without assisted"),
    "assistant": (lambda model: call_of(assistant_model=tiny_model("llama", seed=1))(model), "without assisted"),
    "hidden states": (call_of(output_hidden_states=True, **RETURNED), "output_hidden_states"),
    "attentions": (lambda model: model(PROMPT, logits_to_keep=1, output_attentions=True), "output_attentions"),
    "no cache": (call_of(use_cache=False), "use_cache=True"),
    "static cache": (call_of(cache_implementation="static"), "StaticCache"),
    "own static cache": (
        lambda model: call_of(past_key_values=StaticCache(config=model.config, max_cache_len=32))(model),
        "StaticCache",
    ),
    "all logits": (lambda model: model(PROMPT), r"logits_to_keep=0, the default.*generate\(\), or pass .*keep=1"),
    "router logits": (lambda model: model(PROMPT, logits_to_keep=1, output_router_logits=True), "output_router_logits"),
    "any other output": (lambda model: model(PROMPT, logits_to_keep=1, output_anything=True), "output_anything"),
    "labels": (lambda model: model(PROMPT, labels=PROMPT), "labels"),
    "right padding": (
        call_of(attention_mask=torch.ones_like(PROMPT).index_fill(1, torch.tensor([16]), 0)),
        "padded on the left",
    ),
    "a hole in the prompt": (
        call_of(attention_mask=torch.ones_like(PROMPT).index_fill(1, torch.tensor([5]), 0)),
        "padded on the left, with no hole",
    ),
    "a mask for two": (
        lambda model: model(PROMPT, attention_mask=torch.ones(2, 17), logits_to_keep=1),
        r"attention_mask must be of shape \(1, 17\), .* \(2, 17",
    ),
    "training": (in_training, "training mode"),
    "the decoder alone": (lambda model: model.model(PROMPT), "call the model, and not its decoder"),
}


@pytest.mark.parametrize(("call", "reason"), CALLS.values(), ids=CALLS)
def test_calls_that_pruning_cannot_serve(call, reason):
    model = shared_model("llama")
    with LazyLLM(model, PRUNED):
        refused(lambda: call(model), reason)
        assert model(PROMPT, logits_to_keep=1).logits.shape[1] == 1


def test_a_cache_that_the_plain_model_filled():
    model, filled = shared_model("llama"), DynamicCache(config=shared_model("llama").config)
    model(PROMPT, past_key_values=filled)
    with LazyLLM(model, PRUNED):
        refused(
            lambda: model.generate(torch.cat([PROMPT, PROMPT], dim=1), past_key_values=filled),
            "brings its own KV cache",
        )


def test_a_prompt_longer_than_the_window_before_it_runs():
    model, layers_run = tiny_model("llama"), []
    model.model.layers[0].register_forward_hook(lambda *_: layers_run.append(1))
    with LazyLLM(model, PRUNED):
        refused(lambda: model.generate(random_prompt(300, 0), max_new_tokens=1), "the prompt has 300 tokens, .* 256")
    assert not layers_run


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda model: LazyLLM(model, 0.5), "schedule=0.5 must be a PruningSchedule"),
        (lambda model: LazyLLM(model, None), "schedule=None must be a PruningSchedule"),
        (lambda model: Pruned(model, PRUNED), "must be a Policy; a schedule goes into LazyLLM"),
        (lambda model: PruningSchedule.paper("8"), "num_layers=8 must be a whole number"),
        (lambda model: PruningSchedule.paper(8, keep=0.7), "pruning.keep=0.7 must be a list"),
        (lambda model: LazyLLM(model, PruningSchedule((3,), (0.5,))).__enter__(), "3 is out of range .* of 4 layers"),
        (lambda model: LazyLLM(model, PRUNED).trace.prompt_tokens_computed_mean, "nothing was generated"),
        (lambda model: LazyLLM(model, PRUNED).trace.prompt_tokens_computed_by_stage, "nothing was generated"),
    ],
)
def test_what_is_no_schedule_for_the_model_and_a_trace_of_nothing(made, words):
    refused(lambda: made(shared_model("llama")), words)


def test_outputs_that_the_config_asks_for():
    model = tiny_model("qwen2_moe", output_router_logits=True)
    with LazyLLM(model, PRUNED):
        refused(lambda: call_of()(model), "output_router_logits=True")


def test_outputs_that_nobody_named_where_they_come_out():
    model = tiny_model("llama")
    model.register_forward_hook(lambda _, __, output: {**output, "of_each_token": (torch.zeros(1, 17, 1),)})
    with LazyLLM(model, PRUNED):
        refused(lambda: model(PROMPT, logits_to_keep=1), "of_each_token")


class Adapted(torch.nn.Module):
    """What PEFT's models look like from outside."""

    def get_base_model(self) -> PreTrainedModel:
        return tiny_model("llama")


def compiled_in_place() -> PreTrainedModel:
    model = tiny_model("llama")
    model.compile()
    return model


def encoder_decoder() -> PreTrainedModel:
    config = AutoConfig.for_model("t5", vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    return AutoModelForSeq2SeqLM.from_config(config).eval()


class Llama4TextAttention(torch.nn.Module):
    """As transformers 5.2 has it."""

    def forward(self, hidden_states: torch.Tensor, cache_position: torch.Tensor) -> None: ...


def llama4_of_old() -> PreTrainedModel:
    model = tiny_model("llama4_text")
    model.model.layers[0].self_attn = Llama4TextAttention()
    return model


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "PEFT": (Adapted, r"model\.get_base_model\(\), "),
    "compiled": (lambda: torch.compile(tiny_model("llama")), r"model\._orig_mod"),
    "compiled in place": (compiled_in_place, r"model\.compile\(\)"),
    "DataParallel": (lambda: torch.nn.DataParallel(tiny_model("llama")), r"model\.module"),
    "encoder-decoder": (encoder_decoder, "encoder-decoder"),
    "without a head": (lambda: tiny_model("llama").model, "language-modelling head"),
    "training": (lambda: tiny_model("llama").train(), "training mode"),
    "Llama 4 of old": (llama4_of_old, "scales by step"),
    **{name: (lambda name=name: tiny_model(name), name.split("_alibi")[0] + " .* in its own way") for name in REFUSED},
}


@pytest.mark.parametrize(("made", "words"), MODELS.values(), ids=MODELS)
def test_models_that_cannot_run(made, words):
    refused(lambda: LazyLLM(made(), PRUNED), words)


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
        lambda: _run(model, policy, lambda: Pruned(model, policy).__enter__()),
    ]
    for case in ("all logits", "attentions", "prompt lookup", "chunked prefill", "no cache", "static cache"):
        calls.append(lambda case=case: _run(model, policy, lambda: CALLS[case][0](model)))
    for call in calls:
        said = refused(call, rf"\b{name}\b")
        assert name == "LazyLLM" or "LazyLLM" not in said


def _run(model: PreTrainedModel, policy: Policy, call: Callable[[], Any]) -> None:
    with Pruned(model, policy):
        call()
