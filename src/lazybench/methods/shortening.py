"""What the methods share that hand the model a shorter prompt: which tokens stay, and the generation from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazybench.errors import UserError
from lazybench.measure.flops import ideal_ttft_speedup
from lazybench.methods.base import Request, Response


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


def answer_from(request: Request, positions: Tensor) -> Response:
    """Generate from the prompt's tokens at ``positions`` alone: the model sees a shorter prompt, numbered anew.

    Args:
        positions: (kept,) long, rising.
    """
    tokens, kept = request.prompt_ids.shape[1], len(positions)
    new_tokens = generate(request, request.prompt_ids[:, positions.to(request.prompt_ids.device)])
    layers = request.model.config.get_text_config().num_hidden_layers
    speedup = ideal_ttft_speedup(request.model.config, tokens, [kept] * layers)
    return Response(new_tokens, kept / tokens, (kept / tokens,), speedup)
