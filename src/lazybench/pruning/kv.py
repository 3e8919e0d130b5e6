"""Keys and values of layers, by slot; and reading and writing rows of (batch, ..., rows, ...) buffers by index.

An index of -1 stands for the buffer's last row, which is kept free as a bin: a batch whose rows need different
numbers of entries fills up with -1, and whatever is written there is never read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lazybench.errors import UserError
from lazybench.pruning.stage import Plan

_BATCH, _HEADS, _SLOTS = 2, 3, 4  # axes of (keys and values, layers, batch, kv_heads, slots, head_dim)
_SLACK_SHARE = 8  # a windowed layer holds up to an eighth more than its window, so that not every step copies it


class Arena:
    """The keys and values of several layers in one buffer, so that rows move in all of them at once.

    Layout (keys and values, layers, batch, kv_heads, slots, head_dim): one head's keys lie in one stretch. With three
    KV heads this doubled the speed of a decoding step. Where keys and values differ in head_dim (DeepSeek), each have
    their own buffer. The slot behind those in use is kept free for the fillers of a batch whose rows differ in number.

    Args:
        layers: the layers that share it; all on one device, with keys of one shape, and values alike.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self._index = {layer: index for index, layer in enumerate(layers)}
        self._buffers: list[Tensor] = []  # (keys and values, layers, batch, kv_heads, slots, head_dim)
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values, (batch, kv_heads, slots, head_dim)
        self.num_layers = len(layers)
        self.evicted = 0  # prompt tokens whose keys and values a retention left out, per head
        self.forgotten = 0  # first slots that are not there any more: older than the layer's window

    def write(self, layer: int, keys: Tensor, values: Tensor, plan: Plan, end: int) -> tuple[Tensor, Tensor]:
        """Store the current tokens' keys and values, (batch, kv_heads, queries, head_dim); return the selected ones'.

        Args:
            end: slots in use once they are stored.

        Returns:
            (batch, kv_heads, selected tokens, head_dim), views of the buffers in slot order.
        """
        gone = self.evicted + self.forgotten
        selected = plan.selected.shape[1] - gone
        if not self._buffers or self._buffers[0].shape[_SLOTS] <= end - gone:
            self._grow(end - gone, keys, values)
        stored = []
        for part, given in zip(self._parts[layer], (keys, values), strict=True):
            states = given.detach() if given.requires_grad else given
            if isinstance(plan.slots, slice):
                part.narrow(2, plan.slots.start - gone, states.shape[2]).copy_(states)
            else:
                put_rows(part, plan.slots.to(part.device), states, dim=2, fillers=False)
            stored.append(part.narrow(2, 0, selected))
        return stored[0], stored[1]

    def _grow(self, slots: int, *first: Tensor) -> None:
        """Room for ``slots``, in new buffers if there are none yet, for keys and values like ``first``."""
        like = self._buffers
        if not like:
            pairs = [first] if first[0].shape == first[1].shape else [first[:1], first[1:]]
            like = [pair[0].detach().expand(len(pair), self.num_layers, *pair[0].shape) for pair in pairs]
        # slots that were never written are hidden by a mask in a batch, and never read without one
        fill = None if like[0].shape[_BATCH] == 1 else 0
        self._buffers = [
            room_for(buffer if self._buffers else None, slots, buffer, fill, dim=_SLOTS) for buffer in like
        ]
        self._find_parts()

    @torch.inference_mode(False)  # see room_for
    def _find_parts(self) -> None:
        """Views of the buffers by layer: making them anew in each write took a third of its time on the host."""
        self._parts = {}
        for layer, index in self._index.items():
            keys, values = (part[index] for buffer in self._buffers for part in buffer)
            self._parts[layer] = keys, values

    def move(self, source: Tensor, destination: Tensor, end: int) -> None:
        """Rows from the slots ``source`` to ``destination``, each (batch, n), in all layers at once."""
        if self._buffers and self._buffers[0].shape[_SLOTS] <= end:
            self._grow(end)
        for buffer in self._buffers:
            rows = take_rows(buffer, source.to(buffer.device), dim=_SLOTS, batch=_BATCH, fillers=False)
            put_rows(buffer, destination.to(buffer.device), rows, dim=_SLOTS, batch=_BATCH, fillers=False)

    def keep(self, slots: Tensor, end: int) -> None:
        """Evict all but ``slots`` (batch, kv_heads, kept), rising, of one layer's ``end`` keys and values.

        Raises:
            UserError: the family caches one latent state for all heads (DeepSeek).
        """
        _, heads, count = slots.shape
        if any(buffer.shape[_HEADS] != heads for buffer in self._buffers):
            raise UserError("this family caches what all its heads share, so no keys can be evicted by head")
        for number, buffer in enumerate(self._buffers):
            rows = buffer.gather(_SLOTS, slots[..., None].expand(*buffer.shape[:_SLOTS], count, buffer.shape[-1]))
            kept = self._buffers[number] = room_for(None, count, rows, dim=_SLOTS)
            kept[..., :count, :] = rows
        self._find_parts()
        self.evicted = end - count

    def forget(self, kept: int, end: int) -> None:
        """Leave out all but the newest ``kept`` of ``end`` slots, whose tokens rise; a few more stay until it pays."""
        rows = end - self.forgotten
        if not self._buffers or rows <= kept + kept // _SLACK_SHARE:
            return
        for number, buffer in enumerate(self._buffers):
            newest = buffer.narrow(_SLOTS, rows - kept, kept)
            shortened = self._buffers[number] = room_for(None, kept, newest, 0, dim=_SLOTS)
            shortened.narrow(_SLOTS, 0, kept).copy_(newest)
        self._find_parts()
        self.forgotten = end - kept

    @property
    def bytes_per_slot(self) -> int:
        """Of all its layers, for one row of the batch."""
        return sum(buffer.nbytes // (buffer.shape[_BATCH] * buffer.shape[_SLOTS]) for buffer in self._buffers)

    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        self._buffers = [pick_batch(buffer, index, _BATCH) for buffer in self._buffers]
        self._find_parts()


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

    Growth is amortised and costs little memory: an eighth of few rows, a sixteenth of many. A buffer is made outside
    inference mode, whatever mode the caller is in, so that a later step of another mode may write into it.

    Args:
        like: gives the shape but for the rows, the type and the device of a new buffer.
        fill: what unwritten rows hold; finite where a mask hides them. None: anything, where they are never read; on a
            CPU they then take no memory before they are needed.
    """
    if buffer is not None and buffer.shape[dim] > rows:
        return buffer
    spare = rows // 16 + min(rows // 16, 32) + 16
    shape = [*like.shape[:dim], rows + spare, *like.shape[dim + 1 :]]
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
