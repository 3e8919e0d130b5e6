"""Teacher-forced fidelity: exact for the baseline against itself, computed by hand for another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tiny_requests import tiny_request

from lazybench.contract import Request, Response
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.methods.baseline import Baseline
from lazybench.methods.random_drop import RandomDrop


def unlimited_request(family: str = "llama") -> Request:
    request = tiny_request(family, prompt_tokens=30, new_tokens=8)
    del request.generate_kwargs["min_new_tokens"]
    return request


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_baseline_agrees_with_itself_exactly(family: str) -> None:
    request = unlimited_request(family)
    assert fidelity(Baseline(), request, record_reference(Baseline(), request)) == (1.0, 0.0)


def test_forbidden_tokens_do_not_spoil_the_divergence() -> None:
    request = unlimited_request()
    stop = int(Baseline().run(request).new_tokens[3])
    request = replace(request, generate_kwargs={**request.generate_kwargs, "min_new_tokens": 6, "eos_token_id": stop})
    reference = record_reference(Baseline(), request)
    assert torch.isneginf(reference.log_probabilities[:6, stop]).all()
    assert fidelity(Baseline(), request, reference) == (1.0, 0.0)


def test_an_early_end_of_sequence_ends_the_forced_pass() -> None:
    request = unlimited_request()
    tokens = Baseline().run(request).new_tokens.tolist()
    request = replace(request, generate_kwargs={**request.generate_kwargs, "eos_token_id": tokens[3]})
    reference = record_reference(Baseline(), request)
    assert reference.tokens.tolist() == tokens[: tokens.index(tokens[3]) + 1]
    assert fidelity(Baseline(), request, reference) == (1.0, 0.0)


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

    top1, divergence = fidelity(Watched(keep=0.5), request, reference)
    shortened = seen[0]
    assert shortened.shape == (1, 15)
    assert [int(ids[0, 0]) for ids in seen[1:]] == reference.tokens[:-1].tolist()
    with torch.no_grad():
        logits = request.model(torch.cat([shortened, reference.tokens[None, :-1]], 1)).logits[0, 14:]
    rows, truth = logits.log_softmax(-1).double(), reference.log_probabilities.double()
    assert top1 == pytest.approx((rows.argmax(-1) == reference.tokens).double().mean().item())
    assert divergence == pytest.approx((truth.exp() * (truth - rows)).sum(-1).mean().item(), rel=1e-4)
    assert divergence > 0.01
    assert fidelity(method, request, reference) == (top1, divergence)
