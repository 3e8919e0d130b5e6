"""Attention by torch's FlexAttention, for what SDPA's fast kernels do not know: softcap, sinks, windows, padding.

Off unless the model is loaded with ``attn_implementation="flex_attention"`` (``model.attention=flex_attention``). On
a GPU it is compiled to one kernel that skips blocks nobody sees; elsewhere it runs as written, which is slow.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from lazybench.pruning.masks import Visibility

NAME = "flex_attention"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of the current tokens over the selected ones.

    Args:
        query: (batch, heads, queries, head_dim), as the result; ``key``, ``value`` (batch, kv_heads, keys, head_dim).
        sinks: (heads,) scores of a column that takes its part of the probability and has no value.
    """

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return torch.tanh(score / softcap) * softcap  # type: ignore[operator]

    kernel = _compiled() if query.is_cuda else flex_attention
    known: dict[str, Any] = {
        "score_mod": capped if softcap else None,
        "block_mask": _block_mask(visibility, query.device),
        "scale": scaling,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if sinks is None:
        return cast(Tensor, kernel(query, key, value, **known))
    output, extra = kernel(query, key, value, **known, return_aux=AuxRequest(lse=True))
    # softmax over one more column: everything shrinks by exp(lse) / (exp(lse) + exp(sink))
    kept = torch.sigmoid(extra.lse - sinks.to(extra.lse.dtype)[None, :, None])[..., None].to(output.dtype)
    return cast(Tensor, output * kept)


@cache
def _compiled() -> Any:
    # not dynamic=True: numbers that a mask or a softcap closes over would become symbols, which torch 2.11 can't lower
    return torch.compile(flex_attention)


def _block_mask(visibility: Visibility, device: torch.device) -> BlockMask:
    """Who sees whom by original position, made once for all layers of a stage."""
    known = visibility.block_masks.get(device)
    if known is None:
        current, selected = visibility.current.to(device), visibility.selected.to(device)
        valid = None if visibility.valid is None else visibility.valid.to(device)

        def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            at, seen = current[batch, row], selected[batch, column]
            allowed = visibility.rule.allowed(batch, head, at.clamp(min=0), seen.clamp(min=0))
            if valid is not None:
                allowed = allowed & valid[batch, column]
            return allowed | (at == seen) | (at < 0)  # as in ``Visibility.allowed``: no row without a key

        sizes = current.shape[0], None, current.shape[1], selected.shape[1]
        known = create_block_mask(sees, *sizes, device=device, _compile=device.type == "cuda")
        visibility.block_masks[device] = known
    return cast(BlockMask, known)
