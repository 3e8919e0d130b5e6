"""Teacher-forced fidelity: exact for the baseline against itself, computed by hand for another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from tiny_requests import tiny_request

from lazybench.measure.fidelity import EXACT, fidelity, free_tokens, quality, record_reference
from lazybench.methods.baseline import Baseline
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request, Response


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
