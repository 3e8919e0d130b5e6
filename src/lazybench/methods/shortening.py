"""What the methods share that hand the model a shorter prompt: which tokens stay, and the generation from them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lazybench.contract import Request, Response, Work
from lazybench.errors import UserError

Part = Literal["context", "prompt"]


def check_share(name: str, share: float) -> None:
    """Refuse a share outside (0, 1].

    Raises:
        UserError: naming the parameter, its value and what is allowed.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise UserError(f"{name}={share} must be above 0 and at most 1")


def kept_tokens(keep: float, tokens: int) -> int:
    """``ceil(keep * tokens)`` in float64, at least one: the rounding of ``PruningSchedule.kept``."""
    return max(1, math.ceil(keep * tokens - 1e-9))


def most_important(importance: Tensor, keep: float) -> Tensor:
    """Positions of the tokens to keep, in the text's order.

    Args:
        importance: (tokens,); the last token, which asks, is kept whatever its value.
    """
    ranked = importance.float().clone()
    ranked[-1] = math.inf
    return ranked.topk(kept_tokens(keep, len(ranked))).indices.sort().values  # (kept,)


def droppable(request: Request, part: Part) -> Tensor:
    """Which of the prompt's tokens a method may drop that works on text: no special token, none of the chat format's.

    Args:
        part: ``"context"``: of these the document's alone.

    Returns:
        (prompt_tokens,) bool, on the CPU.

    Raises:
        UserError: the task does not tell its document from the rest.
    """
    may_go = ~torch.isin(request.prompt_ids[0].cpu(), torch.tensor(request.tokenizer.all_special_ids, dtype=torch.long))
    if request.template is not None:
        may_go &= ~request.template
    if part == "prompt":
        return may_go
    if request.context is None:
        raise UserError(
            "prompt_compression.part=context: this task does not say which part of its prompt is the context; "
            "choose part=prompt"
        )
    return may_go & request.context


def generate(request: Request, prompt_ids: Tensor) -> Tensor:
    """What the plain model generates from ``prompt_ids``, the prompt left out.  # (new_tokens,)"""
    output: Tensor = request.model.generate(  # type: ignore[operator]
        prompt_ids, attention_mask=torch.ones_like(prompt_ids), **request.generate_kwargs
    )  # (1, prompt_tokens + new_tokens)
    return output[0, prompt_ids.shape[1] :]


def answer(
    request: Request,
    prompt_ids: Tensor,
    *,
    layer_runs_before: tuple[int, ...] = (),
    other_flops: float = 0.0,
    by_stage: tuple[float, ...] = (),
    overhead_s: float = 0.0,
) -> Response:
    """Generate from a shorter prompt with the plain model, and say what that and what came before it ran.

    Args:
        prompt_ids: (1, kept) what the model sees, numbered anew from 0.
        layer_runs_before: tokens of each layer that this model ran before, to choose what to keep.
        other_flops: see ``Work``.
        by_stage: see ``Work``.
        overhead_s: see ``Response``.
    """
    layers = request.model.config.get_text_config().num_hidden_layers
    runs = layer_runs_before + (prompt_ids.shape[1],) * layers
    work = Work(runs, other_flops=other_flops, by_stage=by_stage)
    return Response(generate(request, prompt_ids), work, overhead_s)
