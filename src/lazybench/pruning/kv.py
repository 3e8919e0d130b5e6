"""Keys and values of layers, by slot."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lazybench.pruning.rows import pick_batch, put_rows, room_for, take_rows
from lazybench.pruning.stage import Plan

_SLACK_SHARE = 8  # a windowed layer holds up to an eighth more than its window, so that not every step copies it
_SLOTS = 3  # axis of the slots in (layers, batch, kv_heads, slots, head_dim)


class Arena:
    """The keys and values of several layers in one buffer each, so that rows move in all of them at once.

    Layout (layers, batch, kv_heads, slots, head_dim): one head's keys lie in one stretch. With three KV heads this
    doubled the speed of a decoding step. Slot -1 is the last one, which is kept free as a bin (see ``rows``).

    Args:
        layers: the layers that share it; all on one device, with keys of one shape.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self._index = {layer: index for index, layer in enumerate(layers)}
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
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
        index, selected = self._index[layer], plan.selected.shape[1] - gone
        for name, states in (("_keys", keys), ("_values", values)):
            like = states.detach().expand(len(self._index), *states.shape)
            # slots that were never written are hidden by a mask in a batch, and never read without one
            buffer = self._grow(name, end - gone, like, None if states.shape[0] == 1 else 0)
            if isinstance(plan.slots, slice):
                start = plan.slots.start - gone
                buffer[index, :, :, start : start + states.shape[2]] = states.detach()
            else:
                put_rows(buffer[index], plan.slots.to(buffer.device), states.detach(), dim=2)
        assert self._keys is not None
        assert self._values is not None
        return self._keys[index, :, :, :selected], self._values[index, :, :, :selected]

    def move(self, source: Tensor, destination: Tensor, end: int) -> None:
        """Rows from the slots ``source`` to ``destination``, each (batch, n), in all layers at once."""
        if self._keys is None:
            return
        for name in ("_keys", "_values"):
            held: Tensor = getattr(self, name)
            buffer = self._grow(name, end, held, None if held.shape[1] == 1 else 0)
            del held
            rows = take_rows(buffer, source.to(buffer.device), dim=_SLOTS, batch=1)
            put_rows(buffer, destination.to(buffer.device), rows, dim=_SLOTS, batch=1)

    def _grow(self, name: str, rows: int, like: Tensor, fill: int | None) -> Tensor:
        """The buffer with room for ``rows``; the old one is let go before the other's turn: a stage's is large."""
        setattr(self, name, room_for(getattr(self, name), rows, like, fill, dim=_SLOTS))
        buffer: Tensor = getattr(self, name)
        return buffer

    def keep(self, slots: Tensor, end: int) -> None:
        """Evict all but ``slots`` (batch, kv_heads, kept), rising, of one layer's ``end`` keys and values."""
        assert self._keys is not None
        assert self._values is not None
        kept = []
        for buffer in (self._keys, self._values):
            index = slots[None, ..., None].expand(1, *slots.shape, buffer.shape[-1])
            kept.append(room_for(None, slots.shape[2], buffer.gather(_SLOTS, index), dim=_SLOTS))
            kept[-1][:, :, :, : slots.shape[2]] = buffer.gather(_SLOTS, index)
        self._keys, self._values = kept
        self.evicted = end - slots.shape[2]

    def forget(self, kept: int, end: int) -> None:
        """Leave out all but the newest ``kept`` of ``end`` slots, whose tokens rise; a few more stay until it pays."""
        rows = end - self.forgotten
        if self._keys is None or self._values is None or rows <= kept + kept // _SLACK_SHARE:
            return
        shortened = []
        for buffer in (self._keys, self._values):
            newest = buffer.narrow(_SLOTS, rows - kept, kept)
            shortened.append(room_for(None, kept, newest, 0, dim=_SLOTS))
            shortened[-1].narrow(_SLOTS, 0, kept).copy_(newest)
        self._keys, self._values = shortened
        self.forgotten = end - kept

    @property
    def bytes_per_slot(self) -> int:
        """Of all its layers, for one row of the batch."""
        if self._keys is None or self._values is None:
            return 0
        return sum(
            buffer.shape[0] * buffer.shape[2] * buffer.shape[4] * buffer.element_size()
            for buffer in (self._keys, self._values)
        )

    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = pick_batch(self._keys, index, 1), pick_batch(self._values, index, 1)
