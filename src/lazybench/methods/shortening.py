"""What the methods share that hand the model a shorter prompt: which tokens stay, and the generation from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazybench.contract import Request, Response, Work
from lazybench.errors import UserError


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
