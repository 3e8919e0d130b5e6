"""What shorter prompts and prunings keep, that all kept is the baseline, and what LazyLLM says of its work."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_requests import FAMILIES, tiny_request
from torch import Tensor
from transformers import AutoModelForCausalLM

from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.prompt_compression import PromptCompression
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request
from lazybench.methods.running import probe_layers
from lazybench.methods.static_pruning import StaticPruning
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.places import full_attention_layers
from lazybench.pruning.schedule import PruningSchedule


@pytest.fixture(scope="module")
def request_() -> Request:
    return tiny_request()


def prompt_seen(method: Method, request: Request) -> Tensor:
    """The ids that the last full prefill embeds.  # (1, tokens)"""
    seen: list[Tensor] = []
    hook = request.model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        method.run(request)
    finally:
        hook.remove()
    return [ids for ids in seen if ids.shape[1] > 1][-1]


def test_baseline_is_plain_generate(request_: Request) -> None:
    response = Baseline().run(request_)
    plain = request_.model.generate(request_.prompt_ids, **request_.generate_kwargs)
    assert torch.equal(response.new_tokens, plain[0, request_.prompt_ids.shape[1] :])
    shares = shares_of(response.work, request_)
    assert (shares.prompt_tokens_computed, shares.by_stage, shares.flops_ratio) == (1.0, (1.0,), 1.0)


EVERYTHING = [
    RandomDrop(1.0),
    StaticPruning(keep=1.0),
    StaticPruning("continue", 1.0),
    PromptCompression(1.0),
    LazyLLMMethod(PruningSchedule((2, 5), (1.0, 1.0))),
]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("method", EVERYTHING, ids=lambda method: f"{method.name} {method.label}")
def test_keep_one_is_the_baseline(method: Method, family: str) -> None:
    request = tiny_request(family)
    reference = record_reference(Baseline(), request)
    response = method.run(request)
    assert torch.equal(response.new_tokens, reference.tokens)
    assert shares_of(response.work, request).prompt_tokens_computed == 1.0
    judged = fidelity(method, request, reference)
    assert judged.top1 == 1.0
    assert judged.kl == pytest.approx(0.0, abs=1e-5)


def test_lazyllm_reports_its_trace() -> None:
    request = tiny_request()
    schedule = PruningSchedule((2, 5), (0.5, 0.5))
    response = LazyLLMMethod(schedule).run(request)
    with LazyLLM(request.model, schedule) as lazy:
        tokens = request.model.generate(request.prompt_ids, **request.generate_kwargs)[0, 60:]
    assert torch.equal(response.new_tokens, tokens)
    work, shares = response.work, shares_of(response.work, request)
    assert work.tokens_of_layer_runs == (60,) * 3 + (30,) * 3 + (15,) * 2
    assert shares.prompt_tokens_computed == lazy.trace.prompt_tokens_computed_mean
    assert shares.by_step[0] == (1.0, 0.5, 0.25)
    assert shares.by_stage == shares.by_step[-1]
    revived = sum(sum(step.revived) for step in lazy.trace.steps)
    assert work.revived_tokens_per_step == revived / 5 > 0
    once = shares_of(StaticPruning("continue", 0.5, depth=0.25).run(request).work, request)
    assert set(once.by_step) == {once.by_stage} == {(1.0, 0.5)}


@pytest.mark.parametrize("keep", [0.1, 0.33, 0.5, 0.9])
def test_random_drop_keeps_an_exact_count_in_order(keep: float, request_: Request) -> None:
    count = math.ceil(keep * request_.prompt_ids.shape[1] - 1e-9)
    numbered = replace(request_, prompt_ids=torch.arange(60)[None])  # ids that name their own position
    seen = prompt_seen(RandomDrop(keep), numbered)[0].tolist()
    assert len(seen) == count
    assert seen == sorted(set(seen))
    assert shares_of(RandomDrop(keep).run(request_).work, request_).prompt_tokens_computed == count / 60


def test_random_drop_draws_by_seed_alone_and_every_token_equally_often() -> None:
    """1,000 draws of half of 20 tokens: each stays 500 times, give or take 5 standard deviations."""
    request = replace(tiny_request(new_tokens=1, num_hidden_layers=1), prompt_ids=torch.arange(20)[None])
    draws = [tuple(prompt_seen(RandomDrop(0.5), replace(request, seed=seed))[0].tolist()) for seed in range(1000)]
    counts = torch.bincount(torch.tensor(draws).flatten(), minlength=20)
    assert ((counts - 500).abs() < 5 * math.sqrt(1000) / 2).all()
    torch.manual_seed(7)  # the global state must not matter, nor change
    before = torch.get_rng_state()
    assert tuple(prompt_seen(RandomDrop(0.5), request)[0].tolist()) == draws[0] != draws[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_probe_sees_the_attention_of_the_first_layers_only(family: str) -> None:
    request = tiny_request(family)
    model, ran = request.model, []
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 8)
    hooks = [
        layer.register_forward_pre_hook(lambda module, args, number=number: ran.append(number))
        for number, layer in enumerate(layers)
    ]
    importance, _ = probe_layers(model, request.prompt_ids, range(2))
    assert ran == [0, 1]
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks for module in model.modules())
    eager = AutoModelForCausalLM.from_config(model.config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    with torch.no_grad():
        attentions = eager(request.prompt_ids, output_attentions=True).attentions
    expected = torch.stack([attentions[layer][0, :, -1].mean(0) for layer in range(2)])  # (layers, tokens)
    for layer in range(2):
        if layer in full_attention_layers(model.config):
            torch.testing.assert_close(importance[layer], expected[layer], atol=1e-6, rtol=1e-4)
        else:  # the window is ignored: inside it, everything older would tie at zero
            assert (importance[layer] > 0).all()
            assert (expected[layer, : -FAMILIES[family]["sliding_window"]] == 0).all()
