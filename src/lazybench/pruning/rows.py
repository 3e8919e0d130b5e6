"""Reading and writing rows of (batch, rows, ...) or (batch, heads, rows, ...) buffers by index.

An index of -1 stands for the buffer's last row, which is kept free as a bin: a batch whose rows need different
numbers of entries fills up with -1, and whatever is written there is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _spare(rows: int) -> int:
    """Growth is amortised and costs little memory: an eighth of few rows, a sixteenth of many."""
    return rows // 16 + min(rows // 16, 32) + 16


def take_rows(buffer: Tensor, index: Tensor, dim: int = 1, batch: int = 0, fillers: bool = True) -> Tensor:
    """(batch, n, ...) the rows ``index`` (batch, n) of ``buffer``, whose rows lie along ``dim``.

    Args:
        fillers: the index of a batch may hold -1.
    """
    if buffer.shape[batch] == 1:
        return buffer.index_select(dim, index[0])
    return buffer.gather(dim, _expand(index, buffer, dim, batch, fillers))


def put_rows(buffer: Tensor, index: Tensor, rows: Tensor, dim: int = 1, batch: int = 0, fillers: bool = True) -> None:
    """Write ``rows`` (batch, n, ...) at ``index`` (batch, n) of ``buffer``, in place; see ``take_rows``."""
    if buffer.shape[batch] == 1:
        buffer.index_copy_(dim, index[0], rows)
    else:
        buffer.scatter_(dim, _expand(index, buffer, dim, batch, fillers), rows)


def _expand(index: Tensor, buffer: Tensor, dim: int, batch: int, fillers: bool) -> Tensor:
    """``index`` (batch, n) for every element of the rows it names."""
    shape = list(buffer.shape)
    shape[dim] = index.shape[1]
    flat = [size if axis in (batch, dim) else 1 for axis, size in enumerate(shape)]
    return (index.remainder(buffer.shape[dim]) if fillers else index).view(flat).expand(shape)


def room_for(buffer: Tensor | None, rows: int, like: Tensor, fill: float | None = None, dim: int = 1) -> Tensor:
    """``buffer`` with at least ``rows`` rows and the bin, grown with room to spare if it has fewer.

    Made outside inference mode and without a graph, whatever mode the caller is in, so that a later step of another
    mode may write into it.

    Args:
        like: gives the shape but for the rows, the type and the device of a new buffer.
        fill: what unwritten rows hold. None: anything, where they are never read; on a CPU they then take no memory
            before they are needed. Where a mask hides them they must be finite.
    """
    if buffer is not None and buffer.shape[dim] > rows:
        return buffer
    shape = [*like.shape[:dim], rows + _spare(rows), *like.shape[dim + 1 :]]
    with torch.inference_mode(False):
        grown = like.new_empty(shape) if fill is None else like.new_full(shape, fill)
    if buffer is not None:
        kept = buffer.shape[dim] - 1
        grown.narrow(dim, 0, kept).copy_(buffer.narrow(dim, 0, kept))
    return grown


@torch.inference_mode(False)  # see room_for
def pick_batch(buffer: Tensor, rows: Tensor, batch: int = 0) -> Tensor:
    """``buffer`` with the ``rows`` (new batch,) of its axis ``batch``, in that order."""
    return buffer.index_select(batch, rows.to(buffer.device))
