"""Does a method still predict what the plain model predicts? Teacher-forced on the baseline's own output.

The method generates through ``model.generate`` as always, while a logits processor notes its next-token
distribution at each step and then forces the baseline's token. So both see the same text before each step,
and every method is judged through the same door, whatever it does to the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lazybench.contract import Method, Request


@dataclass(frozen=True)
class Reference:
    """The baseline's output and how sure it was."""

    tokens: Tensor  # (steps,), long, on the CPU
    log_probabilities: Tensor  # (steps, vocabulary), float32, on the CPU


class _Recorder(LogitsProcessor):
    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.rows.append(scores[0].float().log_softmax(-1).cpu())  # (vocabulary,)
        return scores


class _Forcer(LogitsProcessor):
    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.agreements: list[bool] = []
        self.divergences: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.agreements)
        token = int(self.reference.tokens[step])
        row = scores[0].float().log_softmax(-1)  # (vocabulary,)
        truth = self.reference.log_probabilities[step].to(row.device)
        self.agreements.append(int(row.argmax()) == token)
        # a token that both forbid (min_new_tokens) has probability 0 and adds nothing; -inf less -inf would add nan
        terms = torch.where(truth > -torch.inf, truth.exp() * (truth - row), 0.0)
        self.divergences.append(max(0.0, float(terms.double().sum())))  # rounding can fall below 0
        forced = torch.full_like(scores, -torch.inf)
        forced[:, token] = 0.0
        return forced


def record_reference(baseline: Method, request: Request) -> Reference:
    """Generate with the plain model and keep its tokens and distributions."""
    recorder = _Recorder()
    response = baseline.run(_with_processor(request, recorder))
    tokens = response.new_tokens.cpu()
    return Reference(tokens, torch.stack(recorder.rows[: len(tokens)]))


def fidelity(method: Method, request: Request, reference: Reference) -> tuple[float, float]:
    """How closely a method follows the reference, token by token.

    Returns:
        ``fidelity_top1``: share of steps whose greedy token is the reference's; ``fidelity_kl``: mean KL
        divergence of the method's next-token distribution from the reference's, in nats.
    """
    forcer = _Forcer(reference)
    forced = _with_processor(request, forcer)
    forced.generate_kwargs["max_new_tokens"] = len(reference.tokens)
    method.run(forced)
    steps = len(forcer.agreements)
    return sum(forcer.agreements) / steps, sum(forcer.divergences) / steps


def _with_processor(request: Request, processor: LogitsProcessor) -> Request:
    kwargs: dict[str, Any] = dict(request.generate_kwargs)
    # last, so that it sees what the limits (min_new_tokens) leave of the distribution
    kwargs["logits_processor"] = LogitsProcessorList([*kwargs.get("logits_processor", []), processor])
    return replace(request, generate_kwargs=kwargs)
