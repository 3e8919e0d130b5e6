"""The attention function registered with transformers while a model runs under LazyLLM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention

from lazybench.errors import UserError
from lazybench.pruning import flex
from lazybench.pruning.masks import MaskRule, Visibility

# queries per block, where scores or masks are materialised: no N x N matrix is ever built
_SCORE_BLOCK = 256
_MASK_BLOCK = 1024
_FOLD_LIMIT = 256  # queries up to which a masked call folds the groups into the query axis off the CPU


def lazy_attention(
    module: Module,
    query: Tensor,  # (batch, heads, current tokens, head_dim)
    key: Tensor,  # (batch, kv_heads, selected tokens, head_dim)
    value: Tensor,
    attention_mask: MaskRule,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of the current tokens over the selected ones, shown to whoever looks at this layer.

    Returns:
        (batch, current tokens, heads, head_dim), and None for the attention weights.
    """
    cache = attention_mask.cache
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if wanted := cache.look.wanted(cache):
        shown = {"query": query[:, :, -wanted:], "key": key, "scaling": scaling, "softcap": softcap, "sinks": s_aux}
        cache.look(cache, key.shape[1], **shown)
    visibility = cache.visibility(attention_mask)
    if cache.flex and not (visibility.unmasked and not softcap and s_aux is None):
        output = flex.attend(query, key, value, visibility, scaling, softcap, s_aux)
    elif softcap or s_aux is not None:
        output = _scores_by_block(query, key, value, visibility, scaling, softcap, s_aux)
    elif visibility.unmasked or query.shape[2] <= _MASK_BLOCK:
        mask = visibility.mask(query.device, query.dtype if query.shape[2] <= _FOLD_LIMIT else None)
        output = _attend(query, key, value, mask, visibility.is_causal, scaling)
    else:
        output = _masks_by_block(query, key, value, visibility, scaling)
    if attention_mask.window is not None:
        cache.forget(attention_mask.window)
    elif cache.step.layer in cache.look.windowed:
        raise UserError(
            f"this model can't run under {cache.method}: its config gives layer {cache.step.layer} a sliding window, "
            "by which transformers cuts its cache, and its mask has none"
        )
    return output.transpose(1, 2).contiguous(), None


def _masks_by_block(query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, scaling: float) -> Tensor:
    """A long prompt in a padded batch or beyond its sliding window: a mask per block, only the keys it can see."""
    outputs = []
    for rows, keys in visibility.blocks(_MASK_BLOCK):
        allowed = visibility.allowed(rows, keys).to(query.device)
        outputs.append(_attend(query[:, :, rows], key[:, :, keys], value[:, :, keys], allowed, False, scaling))
    return torch.cat(outputs, dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool, scaling: float) -> Tensor:
    batch, heads, queries, head_dim = query.shape
    kv_heads, value_dim = key.shape[1], value.shape[-1]
    groups = heads // kv_heads
    if queries == 1 or (query.device.type != "cpu" and mask is not None and queries <= _FOLD_LIMIT):
        # the heads of a group become queries of their key-value head: K and V are read once, never repeated
        query = query.reshape(batch, kv_heads, groups * queries, head_dim)
        if mask is not None and queries > 1:
            mask = mask[:, :, None].expand(-1, -1, groups, -1, -1).reshape(mask.shape[0], 1, groups * queries, -1)
        output = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return output.reshape(batch, heads, queries, value_dim)
    native_groups = query.device.type == "cpu" or (mask is None and head_dim == value_dim)
    if groups > 1 and not native_groups:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, scale=scaling, enable_gqa=groups > 1 and native_groups
    )


def _scores_by_block(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Softcapped scores or attention sinks, which SDPA does not know."""
    heads = query.shape[1]
    groups = heads // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for rows, keys in visibility.blocks(_SCORE_BLOCK):
        # in float32, so that half precision can't overflow
        precision = torch.promote_types(query.dtype, torch.float32)
        scores = (query[:, :, rows].to(precision) * scaling) @ key[:, :, keys].to(precision).transpose(2, 3)
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.masked_fill(~visibility.allowed(rows, keys).to(scores.device), float("-inf"))
        seen = scores.shape[-1]
        if sinks is not None:
            column = sinks.to(scores.dtype).view(1, heads, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, column], dim=-1)
        weights = scores.softmax(dim=-1)[..., :seen]
        outputs.append(weights.to(value.dtype) @ value[:, :, keys])
    return torch.cat(outputs, dim=2)
