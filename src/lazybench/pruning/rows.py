"""Reading and writing rows of (batch, rows, ...) buffers by index.

An index of -1 stands for the buffer's last row, which is kept free as a bin: a batch whose rows need different
numbers of entries fills up with -1, and whatever is written there is never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SPARE_SHARE = 16  # one spare row for each 16 in use: growth is amortised and costs little memory
_SPARE_ROWS = 128


def take_rows(buffer: Tensor, index: Tensor) -> Tensor:
    """(batch, n, ...) the rows ``index`` (batch, n) of ``buffer`` (batch, rows, ...)."""
    if buffer.shape[0] == 1:
        return buffer.index_select(1, index[0])
    return buffer.gather(1, _expand(index, buffer))


def put_rows(buffer: Tensor, index: Tensor, rows: Tensor) -> None:
    """Write ``rows`` (batch, n, ...) at ``index`` (batch, n) of ``buffer``, in place."""
    if buffer.shape[0] == 1:
        buffer.index_copy_(1, index[0], rows)
    else:
        buffer.scatter_(1, _expand(index, buffer), rows)


def _expand(index: Tensor, buffer: Tensor) -> Tensor:
    index = index.remainder(buffer.shape[1]).view(*index.shape, *[1] * (buffer.dim() - 2))
    return index.expand(-1, -1, *buffer.shape[2:])


def room_for(buffer: Tensor | None, rows: int, like: Tensor, fill: int | None = None) -> Tensor:
    """``buffer`` with at least ``rows`` rows and the bin, grown with room to spare if it has fewer.

    Args:
        like: (batch, any, ...) gives the shape, type and device of a new buffer.
        fill: what unwritten rows hold. None: anything for a single prompt, whose unwritten rows are never
            read and so take no memory before they are needed; zeros for a batch, where they are masked out.
    """
    if buffer is not None and buffer.shape[1] > rows:
        return buffer
    shape = (like.shape[0], rows + rows // _SPARE_SHARE + _SPARE_ROWS, *like.shape[2:])
    may_be_empty = fill is None and like.shape[0] == 1
    grown = like.new_empty(shape) if may_be_empty else like.new_full(shape, fill or 0)
    if buffer is not None:
        grown[:, : buffer.shape[1] - 1] = buffer[:, :-1]
    return grown


def largest(values: Tensor, where: Tensor, count: int) -> Tensor:
    """(batch, count) the ``values`` (non-negative) where ``where``, rising; -1 in front where there are fewer."""
    return torch.where(where, values, -1).topk(count, dim=1).values.flip(1)
