"""Attention and masks as registered with transformers: which token may attend to which, by original position.

``model.forward`` builds one mask per layer type before its first layer, for all positions. Here it gets the
*rule* in its place, an opaque object that it hands on to its layers unread. Each stage then evaluates the
model's own rule (causal, sliding window, chunks) for the tokens it computes and the tokens it attends to, and
only where a mask is needed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import causal_mask_function

from lazybench.errors import UserError
from lazybench.pruning.rows import probabilities

# queries per block, where scores or masks are materialised: no N x N matrix is ever built
_SCORE_BLOCK = 256
_MASK_BLOCK = 1024
_FOLD_LIMIT = 256  # queries up to which a masked call folds the groups into the query axis off the CPU

# families that compute attention themselves: they add the mask to their scores and take the softmax of that at once
ADD_MASKS = ("bloom", "falcon", "gpt_neox_japanese", "gptj")

# of the forward pass that is building its masks: its cache, weakly, so that none outlives its generation, and viewers
running: ContextVar[tuple[ReferenceType[Any], Any]] = ContextVar("running")


class NoTensor(UserError, AttributeError):
    """A rule was taken for a tensor; an ``AttributeError`` too, for who only asks whether it is one."""


@dataclass(frozen=True)
class MaskRule:
    """One layer type's mask: ``allowed(batch, head, query_position, key_position) -> bool``.

    A family whose layers compute with their mask finds no tensor here: whatever it tries is refused in one line. Those
    of ``ADD_MASKS`` may add it to their scores.

    ``window``: the length in tokens up to which the rule is plain causal; None where it isn't windowed.
    ``cache``, ``viewers``: of the forward pass that it belongs to; the attention function finds everything else there.
    """

    allowed: Callable[..., Any] = causal_mask_function
    window: int | None = None
    cache: Any = field(default=None, compare=False, repr=False)
    viewers: Any = field(default=None, compare=False, repr=False)

    def is_causal(self, tokens: int) -> bool:
        return self.allowed is causal_mask_function or (self.window is not None and tokens <= self.window)

    def contiguous(self) -> MaskRule:
        """``generate`` asks this of the mask that it prepares for a static cache, which is refused later."""
        return self

    def __getattr__(self, name: str) -> Any:  # asked for what a rule does not have
        raise self._is_no_tensor()

    def __getitem__(self, _: Any) -> Any:
        raise self._is_no_tensor()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        rule = next((value for value in given if isinstance(value, cls)), CAUSAL)
        if getattr(func, "__name__", "") == "add" and rule.cache is not None and rule.viewers.adds_masks:
            return rule._added_to(args[0])
        raise rule._is_no_tensor()

    def _added_to(self, scores: Tensor) -> Tensor:
        """``scores`` (batch, heads, queries, keys) with the mask, shown to whoever looks at this layer."""
        visibility = self.cache.visibility(self)
        if not visibility.unmasked or visibility.is_causal:
            scores = scores + visibility.allowed().to(scores.device).log().to(scores.dtype)
        if wanted := self.viewers.wanted(self.cache):
            newest = scores[:, :, -wanted:]
            rows = newest.to(torch.promote_types(newest.dtype, torch.float32)).softmax(dim=-1)
            self.viewers.show(self.cache, rows.shape[1], rows=rows)
        return scores

    def _is_no_tensor(self) -> NoTensor:
        method = "pruning" if self.__dict__.get("cache") is None else self.cache.method
        return NoTensor(
            f"this model can't run under {method}: its layers compute with their attention mask themselves, "
            "which pruning replaces by a rule"
        )


CAUSAL = MaskRule()


def mask_rule(
    *, mask_function: Callable[..., Any] = causal_mask_function, local_size: int | None = None, **_: Any
) -> MaskRule:
    """The mask function registered with transformers: the rule instead of a tensor."""
    cache, viewers = running.get()
    return MaskRule(mask_function, local_size, cache(), viewers)


class Visibility:
    """What the current tokens of one stage see of the selected ones, under one rule; the same in all its layers.

    Args:
        current: (batch, queries) original positions, -1 for a filler of a ragged batch.
        selected: (batch, keys) original positions in the order of the keys.
        valid: (batch, keys) False for keys that are not selected; None when all are.
        in_order: the current tokens are exactly the selected ones, in the same, rising order.
        tokens: how many positions there are.
    """

    def __init__(
        self, rule: MaskRule, current: Tensor, selected: Tensor, valid: Tensor | None, in_order: bool, tokens: int
    ) -> None:
        self.rule, self.current, self.selected, self.valid, self.in_order = rule, current, selected, valid, in_order
        self.causal = rule.is_causal(tokens)
        # a single query, and an ordered prefill: no mask tensor, at most is_causal=True
        self.unmasked = valid is None and self.causal and (in_order or current.shape[1] == 1)
        self.is_causal = self.unmasked and current.shape[1] > 1
        self._masks: dict[tuple[torch.dtype | None, torch.device], Tensor] = {}

    def blocks(self, size: int) -> Iterator[tuple[slice, slice]]:
        """Queries, ``size`` at a time, and the keys that they can see at most."""
        for start in range(0, self.current.shape[1], size):
            end = min(start + size, self.current.shape[1])
            if self.in_order:  # query i is key i, and positions rise at least as fast as their places in the row
                first = max(0, start - self.rule.window) if self.rule.window is not None else 0
                yield slice(start, end), slice(first, end)
            else:
                yield slice(start, end), slice(None)

    def allowed(self, rows: slice = slice(None), keys: slice = slice(None)) -> Tensor:
        """(batch, 1, rows, keys) True where attention is allowed, never all False in a row."""
        query, key = self.current[:, None, rows, None], self.selected[:, None, None, keys]
        if self.causal:
            allowed = key <= query
        else:
            batch = torch.arange(query.shape[0], device=query.device)[:, None, None, None]
            allowed = self.rule.allowed(batch, torch.zeros_like(batch), query.clamp(min=0), key.clamp(min=0))
        # give padding and filler queries a key to see, else softmax returns NaN; nothing sees them
        if self.valid is not None:
            allowed = (allowed & self.valid[:, None, None, keys]) | (query == key)
        if query.shape[0] > 1:  # rows that revive different numbers fill up, also where all select as many
            allowed = allowed | (query < 0)
        return allowed

    def mask(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor | None:
        """The mask on ``device``: None, boolean (``dtype`` None), or additive in ``dtype``. Built once."""
        if self.unmasked:
            return None
        if (dtype, device) not in self._masks:
            allowed = self.allowed().to(device)
            if dtype is not None:
                allowed = allowed.log().to(dtype)  # of true: 0, of false: minus infinity
            self._masks[dtype, device] = allowed
        return self._masks[dtype, device]


def lazy_attention(
    module: Module,
    query: Tensor,  # (batch, heads, current tokens, head_dim)
    key: Tensor,  # (batch, kv_heads, selected tokens, head_dim)
    value: Tensor,
    attention_mask: MaskRule,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of the current tokens over the selected ones, shown to whoever looks at this layer.

    Returns:
        (batch, current tokens, heads, head_dim), and None for the attention weights.
    """
    cache, viewers = attention_mask.cache, attention_mask.viewers
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if wanted := viewers.wanted(cache):
        shown = {"query": query[:, :, -wanted:], "key": key, "scaling": scaling, "softcap": softcap, "sinks": s_aux}
        viewers.show(cache, key.shape[1], **shown)
    visibility = cache.visibility(attention_mask)
    if softcap or s_aux is not None:  # which SDPA does not know
        options = {"scaling": scaling, "softcap": softcap, "sinks": s_aux}
        output = _by_block(_SCORE_BLOCK, _softmax, query, key, value, visibility, **options)
    elif visibility.unmasked or query.shape[2] <= _MASK_BLOCK:
        mask = visibility.mask(query.device, query.dtype if query.shape[2] <= _FOLD_LIMIT else None)
        output = _attend(query, key, value, mask, visibility.is_causal, scaling)
    else:  # a long prompt in a padded batch or beyond its sliding window
        output = _by_block(_MASK_BLOCK, _attend, query, key, value, visibility, is_causal=False, scaling=scaling)
    if attention_mask.window is not None:
        if not viewers.watch:
            cache.forget(attention_mask.window)
    elif cache.step.layer in viewers.windowed:
        raise UserError(
            f"this model can't run under {cache.method}: its config gives layer {cache.step.layer} a sliding window, "
            "by which transformers cuts its cache, and its mask has none"
        )
    return output.transpose(1, 2).contiguous(), None


def _by_block(
    size: int, attend: Any, query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, **options: Any
) -> Tensor:
    """``attend`` with a mask per block of queries, and only the keys that it can see."""
    outputs = []
    for rows, keys in visibility.blocks(size):
        allowed = visibility.allowed(rows, keys).to(query.device)
        outputs.append(attend(query[:, :, rows], key[:, :, keys], value[:, :, keys], allowed, **options))
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


def _softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with softcapped scores or attention sinks; in float32, so that half precision can't overflow."""
    heads, precision = query.shape[1], torch.promote_types(query.dtype, torch.float32)
    key, value = (states.repeat_interleave(heads // key.shape[1], dim=1) for states in (key, value))
    scores = (query.to(precision) * scaling) @ key.to(precision).transpose(2, 3)
    return probabilities(scores, ~allowed, softcap, sinks).to(value.dtype) @ value
