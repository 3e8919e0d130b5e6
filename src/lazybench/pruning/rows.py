"""Reading and writing rows of (batch, rows, ...) or (batch, heads, rows, ...) buffers by index.

An index of -1 stands for the buffer's last row, which is kept free as a bin: a batch whose rows need different
numbers of entries fills up with -1, and whatever is written there is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SPARE_SHARE = 16  # one spare row for each 16 in use: growth is amortised and costs little memory
_SPARE_ROWS = 128


def take_rows(buffer: Tensor, index: Tensor, dim: int = 1) -> Tensor:
    """(batch, n, ...) the rows ``index`` (batch, n) of ``buffer`` (batch, rows, ...), whose rows lie along ``dim``."""
    if buffer.shape[0] == 1:
        return buffer.index_select(dim, index[0])
    return buffer.gather(dim, _expand(index, buffer, dim))


def put_rows(buffer: Tensor, index: Tensor, rows: Tensor, dim: int = 1) -> None:
    """Write ``rows`` (batch, n, ...) at ``index`` (batch, n) of ``buffer``, in place."""
    if buffer.shape[0] == 1:
        buffer.index_copy_(dim, index[0], rows)
    else:
        buffer.scatter_(dim, _expand(index, buffer, dim), rows)


def _expand(index: Tensor, buffer: Tensor, dim: int) -> Tensor:
    """``index`` (batch, n) for every element of the rows it names."""
    shape = [*buffer.shape[:dim], index.shape[1], *buffer.shape[dim + 1 :]]
    flat = [size if axis in (0, dim) else 1 for axis, size in enumerate(shape)]
    return index.remainder(buffer.shape[dim]).view(flat).expand(shape)


@torch.inference_mode(False)  # what is made in inference mode could not be written to outside
def pick_batch(buffer: Tensor, rows: Tensor) -> Tensor:
    """``buffer`` (batch, ...) with the batch's ``rows`` (new batch,), in that order."""
    return buffer.index_select(0, rows.to(buffer.device))


def room_for(buffer: Tensor | None, rows: int, like: Tensor, fill: int | None = None, dim: int = 1) -> Tensor:
    """``buffer`` with at least ``rows`` rows and the bin, grown with room to spare if it has fewer.

    Args:
        like: (batch, any, ...) gives the shape, type and device of a new buffer.
        fill: what unwritten rows hold. None: anything for a single prompt, whose unwritten rows are never
            read and so take no memory before they are needed; zeros for a batch, where they are masked out.
    """
    if buffer is not None and buffer.shape[dim] > rows:
        return buffer
    shape = [*like.shape[:dim], rows + rows // _SPARE_SHARE + _SPARE_ROWS, *like.shape[dim + 1 :]]
    may_be_empty = fill is None and like.shape[0] == 1
    with torch.inference_mode(False):  # see pick_batch
        grown = like.new_empty(shape) if may_be_empty else like.new_full(shape, fill or 0)
    if buffer is not None:
        kept = buffer.shape[dim] - 1
        grown.narrow(dim, 0, kept).copy_(buffer.narrow(dim, 0, kept))
    return grown


def largest(values: Tensor, where: Tensor, count: int) -> Tensor:
    """(batch, count) the ``values`` (non-negative) where ``where``, rising; -1 in front where there are fewer."""
    return torch.where(where, values, -1).topk(count, dim=1).values.flip(1)
