"""Does a method still predict what the plain model predicts? Teacher-forced on the baseline's own output.

The method generates through ``model.generate`` as always, while a logits processor notes its next-token
distribution at each step and then forces the baseline's token. So both see the same text before each step,
and every method is judged in the same way, whatever it does to the prompt.

The first token and the later ones are told apart: the prefill alone decides the first, and a method that revives
tokens can make good in the later steps what its prefill dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lazybench.methods.base import Method
from lazybench.methods.request import Request, Response


@dataclass(frozen=True)
class Reference:
    """The baseline's output and how sure it was."""

    tokens: Tensor  # (steps,), long, on the CPU
    log_probabilities: Tensor  # (steps, vocabulary), float32, on the CPU
    response: Response  # the generation itself


@dataclass(frozen=True)
class Fidelity:
    """How closely a method follows the reference, over all steps and for the first token.

    ``top1``: share of steps whose greedy token is the reference's. ``kl``: mean KL divergence of the method's
    next-token distribution from the reference's, in nats.
    """

    top1: float
    kl: float
    first_top1: float
    first_kl: float

    @classmethod
    def of_steps(cls, agreements: list[bool], divergences: list[float]) -> Fidelity:
        return cls(fmean(agreements), fmean(divergences), float(agreements[0]), divergences[0])


@dataclass(frozen=True)
class Quality:
    """What one teacher-forced generation tells of a method."""

    fidelity: Fidelity
    response: Response  # its work; its new tokens are the reference's


EXACT = Fidelity.of_steps([True, True], [0.0, 0.0])  # the reference against itself


class _Recorder(LogitsProcessor):
    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.rows.append(scores[0].float().log_softmax(-1).cpu())  # (vocabulary,)
        return scores


class _Forcer(LogitsProcessor):
    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.agreements: list[Tensor] = []  # each a bool, left on the device: nothing waits for it between steps
        self.divergences: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.agreements)
        token = int(self.reference.tokens[step])
        row = scores[0].float().log_softmax(-1)  # (vocabulary,)
        truth = self.reference.log_probabilities[step].to(row.device)
        self.agreements.append(scores[0].argmax() == token)
        # a token that both forbid (min_new_tokens) has probability 0 and adds nothing; -inf less -inf would add nan
        terms = torch.where(truth > -torch.inf, truth.exp() * (truth - row), 0.0)
        self.divergences.append(terms.double().sum().clamp(min=0.0))  # rounding can fall below 0
        forced = torch.full_like(scores, -torch.inf)
        forced[:, token] = 0.0
        return forced


def record_reference(baseline: Method, request: Request) -> Reference:
    """Generate with the plain model and keep its tokens and distributions."""
    recorder = _Recorder()
    response = baseline.run(_with_processor(request, recorder))
    tokens = response.new_tokens.cpu()
    return Reference(tokens, torch.stack(recorder.rows[: len(tokens)]), response)


def quality(method: Method, request: Request, reference: Reference) -> Quality:
    """Judge a method against the reference in one generation, with the reference's tokens forced upon it."""
    forcer = _Forcer(reference)
    forced = _with_processor(request, forcer)
    forced.generate_kwargs["max_new_tokens"] = len(reference.tokens)
    response = method.run(forced)
    agreements, divergences = torch.stack(forcer.agreements).tolist(), torch.stack(forcer.divergences).tolist()
    return Quality(Fidelity.of_steps(agreements, divergences), response)


def fidelity(method: Method, request: Request, reference: Reference) -> Fidelity:
    """``quality`` without the response."""
    return quality(method, request, reference).fidelity


def free_tokens(method: Method, request: Request, reference: Reference, judged: Fidelity) -> Tensor:
    """What the method generates on its own, for its score.  # (new_tokens,)

    Where it agrees with the reference at every step, greedy decoding gives the reference's tokens, and nothing
    runs; else it generates a second time.
    """
    return reference.tokens if judged.top1 == 1.0 else method.run(request).new_tokens


def _with_processor(request: Request, processor: LogitsProcessor) -> Request:
    kwargs: dict[str, Any] = dict(request.generate_kwargs)
    # last, so that it sees what the limits (min_new_tokens) leave of the distribution
    kwargs["logits_processor"] = LogitsProcessorList([*kwargs.get("logits_processor", []), processor])
    return replace(request, generate_kwargs=kwargs)
