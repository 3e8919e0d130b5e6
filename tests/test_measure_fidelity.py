"""Teacher-forced fidelity: exact for the baseline against itself, computed by hand for another; and work's shares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from tiny_requests import tiny_request

from lazybench.measure.fidelity import EXACT, fidelity, free_tokens, quality, record_reference
from lazybench.measure.work import shares_of
from lazybench.methods.baseline import Baseline
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request, Response, Work
from lazybench.models.flops import full_prefill_flops, prefill_flops


def unlimited_request(family: str = "llama") -> Request:
    request = tiny_request(family, prompt_tokens=30, new_tokens=8)
    del request.generate_kwargs["min_new_tokens"]
    return request


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_baseline_agrees_with_itself_exactly(family: str) -> None:
    request = unlimited_request(family)
    assert fidelity(Baseline(), request, record_reference(Baseline(), request)) == EXACT


def test_forbidden_tokens_do_not_spoil_the_divergence() -> None:
    request = unlimited_request()
    stop = int(Baseline().run(request).new_tokens[3])
    request = replace(request, generate_kwargs={**request.generate_kwargs, "min_new_tokens": 6, "eos_token_id": stop})
    reference = record_reference(Baseline(), request)
    assert torch.isneginf(reference.log_probabilities[:6, stop]).all()
    assert fidelity(Baseline(), request, reference) == EXACT


def test_an_early_end_of_sequence_ends_the_forced_pass() -> None:
    request = unlimited_request("gpt2")  # its third token is a new one
    tokens = Baseline().run(request).new_tokens.tolist()
    request = replace(request, generate_kwargs={**request.generate_kwargs, "eos_token_id": tokens[2]})
    reference = record_reference(Baseline(), request)
    assert reference.tokens.tolist() == tokens[:3]
    assert fidelity(Baseline(), request, reference) == EXACT


def test_another_method_is_judged_on_the_same_text() -> None:
    """Against plain forward passes on the shortened prompt with the reference's tokens behind it."""
    request = unlimited_request()
    reference = record_reference(Baseline(), request)
    method = RandomDrop(keep=0.5)
    seen: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class Watched(RandomDrop):
        def run(self, request: Request) -> Response:
            embedding = request.model.get_input_embeddings()
            hook = embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
            try:
                return super().run(request)
            finally:
                hook.remove()

    judged = fidelity(Watched(keep=0.5), request, reference)
    shortened = seen[0]
    assert shortened.shape == (1, 15)
    assert [int(ids[0, 0]) for ids in seen[1:]] == reference.tokens[:-1].tolist()
    with torch.no_grad():
        logits = request.model(torch.cat([shortened, reference.tokens[None, :-1]], 1)).logits[0, 14:]
    rows, truth = logits.log_softmax(-1).double(), reference.log_probabilities.double()
    agreements = (rows.argmax(-1) == reference.tokens).double()
    divergences = (truth.exp() * (truth - rows)).sum(-1)
    assert judged.kl > 0.01
    for found, expected in (
        (judged.top1, agreements.mean()),
        (judged.first_top1, agreements[0]),
        (judged.kl, divergences.mean()),
        (judged.first_kl, divergences[0]),
    ):
        assert found == pytest.approx(expected.item(), rel=1e-4)
    assert fidelity(method, request, reference) == judged


@dataclass(frozen=True)
class Counted(RandomDrop):
    """Counts its generations in ``runs``."""

    runs: Any = field(default_factory=list)

    def run(self, request: Request) -> Response:
        self.runs.append(1)
        return super().run(request)


@pytest.mark.parametrize(("keep", "runs"), [(1.0, 1), (0.5, 2)])
def test_a_free_generation_runs_only_where_it_can_differ(keep: float, runs: int) -> None:
    request = unlimited_request()
    reference = record_reference(Baseline(), request)
    method = Counted(keep=keep)
    judged = quality(method, request, reference)
    assert judged.response.work == RandomDrop(keep=keep).run(request).work
    assert (judged.fidelity.top1 == 1.0) == (keep == 1.0)
    tokens = free_tokens(method, request, reference, judged.fidelity)
    assert len(method.runs) == runs
    assert torch.equal(tokens, RandomDrop(keep=keep).run(request).new_tokens)


# from work to the FLOPs ratio and shares: probes, dropped MLPs and other models all count
REQUEST = tiny_request(new_tokens=1)  # 60 tokens, 8 layers
FULL = full_prefill_flops(REQUEST.model.config, 60)
PLAIN = Work((60,) * 8)


def test_everything_before_the_first_token_counts() -> None:
    probe = shares_of(Work((60,) * 2 + (30,) * 8, by_stage=(1.5, 0.5)), REQUEST)
    assert probe.prompt_tokens_computed == pytest.approx(0.25 + 0.5)
    assert probe.by_stage == (1.5, 0.5)
    half = full_prefill_flops(REQUEST.model.config, 30)
    assert probe.flops_ratio == pytest.approx(FULL / (FULL / 4 + half))
    assert shares_of(replace(PLAIN, other_flops=FULL), REQUEST).flops_ratio == pytest.approx(0.5)


def test_tokens_dropped_before_the_mlp_save_the_mlp_alone() -> None:
    dropped = shares_of(replace(PLAIN, mlp_tokens_of_layer_runs=(60,) * 4 + (0,) * 4), REQUEST)
    attention_alone = prefill_flops(REQUEST.model.config, [60], [0])
    assert dropped.flops_ratio == pytest.approx(FULL / (FULL / 2 + 4 * attention_alone))
    assert dropped.prompt_tokens_computed == 1.0


def test_a_method_that_revives_says_its_own_share() -> None:
    work = Work(
        (60,) * 4 + (30,) * 4, prompt_tokens_computed=0.8, by_stage=(1.0, 0.6), by_step=((1.0, 0.5), (1.0, 0.6))
    )
    shares = shares_of(work, REQUEST)
    assert (shares.prompt_tokens_computed, shares.by_stage, shares.by_step[0]) == (0.8, (1.0, 0.6), (1.0, 0.5))
    assert shares.flops_ratio == shares_of(Work(work.tokens_of_layer_runs), REQUEST).flops_ratio
