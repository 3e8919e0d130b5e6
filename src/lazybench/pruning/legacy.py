"""Families that do not go through transformers' attention interface: falcon, gptj, bloom, mpt, codegen.

Their layers get ready-made masks and key-indexed biases and compute attention themselves. So the masks and
biases are rewritten for the tokens at hand, and the attention rows are read where the layer computes its softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lazybench.pruning.attention import CAUSAL
from lazybench.pruning.step import Step

if TYPE_CHECKING:
    from lazybench.pruning.cache import LazyCache
    from lazybench.pruning.choosing import Viewers

# nemotron and the Japanese GPT-NeoX joined the interface later
FAMILIES = ("bloom", "codegen", "falcon", "gpt_neox_japanese", "gptj", "mpt", "nemotron")
KEY_INPUTS = ("attention_mask", "alibi", "position_bias")  # indexed by key: not one row per current token


def adapt_inputs(kwargs: dict[str, Any], step: Step, true_means_hidden: bool) -> dict[str, Any]:
    """A layer's keyword arguments with masks and biases for the current and selected tokens.

    Args:
        true_means_hidden: how the family reads a boolean mask (mpt hides where it is True).
    """
    if step.is_first_stage:
        return kwargs
    plan = step.plan
    selected = plan.selected.clamp(min=0)
    adapted = dict(kwargs)
    if "attention_mask" in kwargs:
        adapted["attention_mask"] = _mask(kwargs["attention_mask"], step, true_means_hidden)
    alibi = kwargs.get("alibi")
    if isinstance(alibi, Tensor):  # (batch * heads, 1, tokens), or falcon's (batch, heads, 1, tokens)
        by_head = alibi.view(len(plan.counts), -1, 1, alibi.shape[-1])
        gathered = _by_key(by_head, selected)
        adapted["alibi"] = gathered if alibi.dim() == 4 else gathered.flatten(0, 1)
    bias = kwargs.get("position_bias")
    if isinstance(bias, Tensor):  # mpt: (heads, 1, longest), of which the last `tokens` count; no batch axis
        adapted["position_bias"] = bias[:, :, bias.shape[2] - step.tokens :][:, :, selected[0].to(bias.device)]
    return adapted


def _mask(original: Any, step: Step, true_means_hidden: bool) -> Tensor:
    allowed = step.visibility(CAUSAL).allowed()
    if not isinstance(original, Tensor):
        return allowed
    allowed = allowed.to(original.device)
    if original.dtype == torch.bool:
        return ~allowed if true_means_hidden else allowed
    # the last token sees every other: its row holds what the family adds by key (falcon its ALiBi), zeros elsewhere
    added = _by_key(original[:, :, -1:].expand(len(step.plan.counts), -1, -1, -1), step.plan.selected.clamp(min=0))
    return torch.where(allowed, added, torch.finfo(original.dtype).min)


def _by_key(values: Tensor, selected: Tensor) -> Tensor:
    """The columns of ``values`` (batch, heads or 1, 1, tokens) at the ``selected`` positions (batch, keys)."""
    index = selected[:, None, None].expand(-1, values.shape[1], -1, -1)
    return values.gather(3, index.to(values.device))  # (batch, heads or 1, 1, keys)


class AttentionWatch(TorchFunctionMode):
    """Sees the layer's own softmax or SDPA call and shows the newest queries' rows to whoever looks."""

    def __init__(self, cache: LazyCache, viewers: Viewers) -> None:
        super().__init__()
        self.cache, self.viewers, self.wanted = cache, viewers, viewers.wanted(cache)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            query, key = args[0], args[1]
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            scaling = kwargs.get("scale") or query.shape[-1] ** -0.5
            self._show(_rows(query[:, :, -self.wanted :], key, mask, scaling))
        elif name == "softmax" and output.dim() in (3, 4):
            assert self.cache.step is not None
            plan = self.cache.step.plan
            if output.shape[-2:] == (plan.current.shape[1], plan.selected.shape[1]):
                rows = output[..., -self.wanted :, :]
                self._show(rows.reshape(len(plan.counts), -1, *rows.shape[-2:]))
        return output

    def _show(self, rows: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            self.viewers.show(self.cache, rows.shape[1], rows=rows)


def _rows(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """(batch, heads, queries, keys) probabilities of the newest queries, under the layer's own mask."""
    precision = torch.promote_types(query.dtype, torch.float32)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query.to(precision) * scaling) @ key.to(precision).transpose(2, 3)
    if mask is None:  # is_causal, or one query
        queries, keys = scores.shape[-2:]
        hidden = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(keys - queries + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
    else:
        newest = mask[:, :, -query.shape[2] :]
        scores = scores.masked_fill(~newest, -torch.inf) if newest.dtype == torch.bool else scores + newest
    return scores.softmax(dim=-1)
