"""Which token may attend to which, by original position.

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
from transformers.masking_utils import causal_mask_function

from lazybench.errors import UserError

# the cache of the forward pass that is building its masks; weakly, so that no cache outlives its generation
running: ContextVar[ReferenceType[Any]] = ContextVar("running")


class NoTensor(UserError, AttributeError):
    """A rule was taken for a tensor; an ``AttributeError`` too, for who only asks whether it is one."""


@dataclass(frozen=True)
class MaskRule:
    """One layer type's mask: ``allowed(batch, head, query_position, key_position) -> bool``.

    A family whose layers compute with their mask finds no tensor here: whatever it tries is refused in one line.

    ``window``: the length in tokens up to which the rule is plain causal; None where it isn't windowed.
    ``cache``: of the forward pass that it belongs to; the attention function finds everything else there.
    """

    allowed: Callable[..., Any] = causal_mask_function
    window: int | None = None
    cache: Any = field(default=None, compare=False, repr=False)

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
        raise next((value for value in given if isinstance(value, cls)), CAUSAL)._is_no_tensor()

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
    return MaskRule(mask_function, local_size, running.get()())


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
        self.block_masks: dict[torch.device, Any] = {}  # FlexAttention's

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
