"""What shorter prompts and prunings keep, that all kept is the baseline, and what LazyLLM says of its work."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
import torch
from conftest import RunPy
from longbench_rows import row, write
from tiny_requests import FAMILIES, tiny_request
from torch import Tensor
from transformers import AutoModelForCausalLM

from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.work import shares_of
from lazybench.methods import Method, build, selective_context
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.prompt_compression import PromptCompression
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request
from lazybench.methods.running import generate, probe_layers
from lazybench.methods.selective_context import self_information, sentence_of
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
    build("random_drop", {"keep": 1.0}),
    build("static_pruning", {"keep": 1.0}),
    build("static_pruning", {"variant": "continue", "keep": 1.0}),
    build("prompt_compression", {"keep": 1.0}),
    build("lazyllm", {"pruning": {"layers": [2, 5], "keep": [1.0, 1.0]}}),
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


def test_random_drop_draws_an_exact_count_in_order_by_seed_alone_and_every_token_equally_often() -> None:
    """1,000 draws of 7 of 20 tokens, a third rounded up: each stays 350 times, give or take 5 standard deviations."""
    drop, request = RandomDrop(0.33), tiny_request(prompt_tokens=20, new_tokens=1, num_hidden_layers=1)
    numbered = replace(request, prompt_ids=torch.arange(20)[None])  # ids that name their own position
    draws = [tuple(prompt_seen(drop, replace(numbered, seed=seed))[0].tolist()) for seed in range(1000)]
    assert all(draw == tuple(sorted(set(draw))) and len(draw) == 7 for draw in draws)
    assert shares_of(drop.run(request).work, request).prompt_tokens_computed == 7 / 20
    counts = torch.bincount(torch.tensor(draws).flatten(), minlength=20)
    assert ((counts - 350).abs() < 5 * math.sqrt(1000 * 0.35 * 0.65)).all()
    torch.manual_seed(7)  # the global state must not matter, nor change
    before = torch.get_rng_state()
    assert tuple(prompt_seen(drop, numbered)[0].tolist()) == draws[0] != draws[1]
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


# ---- prompt compression: self-information, sentences, what stays


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_self_information_in_chunks_is_that_of_one_pass(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selective_context, "CHUNK_TOKENS", 7)
    request = tiny_request(family)
    found = self_information(request.model, request.prompt_ids)[0]
    with torch.no_grad():
        rows = request.model(request.prompt_ids).logits[0].log_softmax(-1)
    expected = -rows[range(59), request.prompt_ids[0, 1:]]
    torch.testing.assert_close(found[1:], expected, atol=1e-4, rtol=1e-4)
    assert found[0] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_lines_are_sentences_too() -> None:
    texts = ["", "A", " tree", ".", " Another", " one", "!", "\n", "x", " =", " 1", "\n"]
    assert sentence_of(texts).tolist() == [-1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("keep", [0.9, 0.4, 0.001])
def test_the_least_informative_sentences_go_and_the_special_token_stays(keep: float) -> None:
    """A stop ends a sentence, and so does a line. At a ratio of nearly nothing the special token alone stays."""
    request = tiny_request(prompt_tokens=400)  # a token a byte
    information = self_information(request.model, request.prompt_ids)[0].tolist()
    text = request.tokenizer.decode(request.prompt_ids[0, 1:])
    begins = [0]
    for place in range(1, len(text)):
        before = text[:place]
        after_a_stop = before != before.rstrip() and before.rstrip().endswith((".", "!", "?"))
        on_a_line = before.endswith("\n") and text[place] != "\n"
        if on_a_line if not after_a_stop else not text[place].isspace():
            begins.append(place)
    groups = [range(first + 1, end + 1) for first, end in pairwise([*begins, len(text)])]  # behind the special token
    assert len(groups) > 3
    kept = set(range(400))
    for group in sorted(groups, key=lambda group: fmean(information[token] for token in group)):
        if len(kept) - len(group) < keep * 400:
            break
        kept -= set(group)
    response = PromptCompression(keep).run(request)
    assert torch.equal(response.new_tokens, generate(request, request.prompt_ids[:, sorted(kept)])[0])
    assert response.work.tokens_of_layer_runs == (400,) * 8 + (len(kept),) * 8
    assert 0 in kept
    assert len(kept) < 400
    # reading the prompt costs as much as the prefill it shortens
    assert shares_of(response.work, request).flops_ratio < 1


def test_an_empty_context_fails_alone_and_says_so(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    """A bad row stands first, another in the middle: the others are measured, by every method."""
    rows = [row(number, context="" if number in (0, 2) else "A line. " * 20) for number in range(4)]
    done = run_py(
        *(f"model.path={tiny_checkpoint}", "task=qasper", f"data.root={write(tmp_path, 'qasper', rows)}"),
        *("methods=[baseline,prompt_compression]", f"out={tmp_path / 'run'}"),
        *("max_new_tokens=2", "model.dtype=float32", "fidelity=false"),
    )
    assert done.returncode == 1, done.stderr
    named = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    for line, place in zip(named, (0, 2), strict=True):
        assert f"prompt_compression sample id{place}" in line
        assert "this sample's context is empty" in line
    records = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    failed = {(record["method"], record["sample_id"]) for record in records if record["error"]}
    assert (len(records), failed) == (8, {("prompt_compression", "id0"), ("prompt_compression", "id2")})
