"""Counts what a forward pass asks of the device: deterministic, where a clock on a shared machine is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

# a new tensor over the same memory, or memory alone: nothing for the device to do
_FREE = {
    *("view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "alias", "detach"),
    *("select", "slice", "split", "split_with_sizes", "chunk", "unbind", "narrow", "as_strided", "lift_fresh"),
    *("promote_types",),  # arithmetic on types alone
    *("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"),
}
_READS_ALL = {Tensor.tolist, Tensor.cpu}  # numpy() alone fails on a GPU's tensor: cpu() stands before it, and counts
# item(), bool(), int() and float() end in the first of these; the others' results have a shape that depends on values
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_consecutive"}


@dataclass
class Operations:
    """Of one forward pass.

    Attributes:
        launched: operations that launch work on the device; views do not.
        waits: times that the host waits for the device, to read values or to learn a shape that depends on them.
        copies: small tensors made of Python values or arrays, each a copy from the host to the device.
    """

    launched: int = 0
    waits: int = 0
    copies: int = 0


class _Dispatched(TorchDispatchMode):
    """Counts below autograd, where each kernel is called once."""

    def __init__(self, counts: Operations) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(_is_mask(index) for index in args[1])
        self.counts.waits += by_mask or name in _WAITS
        self.counts.launched += name not in _FREE and name != "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    """Counts what Python asked for: a CPU tensor gives its values without any kernel, a GPU's does not."""

    def __init__(self, counts: Operations) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.counts.waits += func in _READS_ALL
        self.counts.copies += func in (torch.tensor, torch.as_tensor) and output.numel() > 0
        return output


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


@contextmanager
def count_operations() -> Iterator[Operations]:
    """Counts what runs inside, on CPU tensors, as a GPU would have it to do."""
    counts = Operations()
    frombuffer = torch.frombuffer

    def counted(array: Any, **options: Any) -> Tensor:
        counts.copies += 1
        return frombuffer(array, **options)

    with _Dispatched(counts), _Called(counts), patch("torch.frombuffer", counted):
        yield counts


def operations_of(model: PreTrainedModel, generate: Callable[[], object]) -> list[Operations]:
    """Of each forward pass of ``model`` that ``generate()`` runs: the prefill, then the decoding steps.

    What runs between the passes is left out. A LazyLLM context that ``generate()`` enters is counted: its hooks
    run after the one that starts the count.
    """
    passes: list[Operations] = []
    running = ExitStack()

    def start(*_: object) -> None:
        passes.append(running.enter_context(count_operations()))

    hooks = (
        model.register_forward_pre_hook(start),
        model.register_forward_hook(lambda *_: running.close(), always_call=True),
    )
    try:
        generate()
    finally:
        for hook in hooks:
            hook.remove()
    return passes
