"""Saving the MLP of a pruning layer: it runs for the tokens that go on alone (UniPrefill drops them before it)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from lazybench.pruning.rows import take_rows

# called before a layer's MLP with its input: (batch, next current tokens) which rows go on; None: all of them
RowsBeforeMlp = Callable[[Tensor], Tensor | None]


class SavedMlp:
    """Hooks around one layer's MLP. What it would have given the other tokens stays zero: they are dropped anyway."""

    def __init__(self, rows: RowsBeforeMlp) -> None:
        self._rows = rows
        self._running: tuple[Tensor, torch.Size] | None = None

    def attach(self, mlp: Module, undo: ExitStack) -> None:
        """From now on, until ``undo``."""
        undo.callback(mlp.register_forward_pre_hook(self._before).remove)
        undo.callback(mlp.register_forward_hook(self._after).remove)

    def _before(self, module: Module, args: tuple) -> tuple | None:
        shape, rows = args[0].shape, self._rows(args[0])
        if rows is None:
            self._running = None
            return None
        rows = rows.to(args[0].device)
        self._running = rows, shape
        # bloom's MLP gets the residual too, and adds it itself
        per_token = [isinstance(arg, Tensor) and arg.shape[:2] == shape[:2] for arg in args]
        return tuple(take_rows(arg, rows) if cut else arg for arg, cut in zip(args, per_token, strict=True))

    def _after(self, module: Module, args: tuple, output: Any) -> Any:
        if self._running is None:
            return output
        rows, shape = self._running
        part = output if isinstance(output, Tensor) else output[0]
        part = part.view(*rows.shape, -1)  # Llama 4's experts return theirs flat, (tokens, hidden)
        whole = part.new_zeros(*shape[:2], part.shape[-1])
        whole = whole.scatter(1, rows[..., None].expand_as(part), part)
        return whole if isinstance(output, Tensor) else (whole, *output[1:])
