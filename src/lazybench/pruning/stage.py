"""Which tokens a stage's layers have computed, and in which slot of their key and value buffers each lies.

A *stage* is the run of layers between two prunings: all of them compute the same tokens, so one table serves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Slots = NDArray[numpy.int64]
FILLER = -1  # a position, slot or token that is not there: it fills up the shorter rows of a batch


@dataclass
class Plan:
    """One stage in one step: what it computes, what it attends to, and where the new keys and values go.

    Attributes:
        current: (batch, queries) positions of the tokens to compute, rising; fillers in front.
        selected: (batch, keys) positions of the tokens to attend to, in slot order.
        valid: (batch, keys) False where a key is not selected (padding, fillers); None when all are.
        counts: selected tokens of each row of the batch.
        computed: tokens to compute of each row, fillers left out.
        slots: where the keys and values of ``current`` go: a stretch, or (batch, queries) slots.
        moves: (source, destination) slots, each (batch, n), of rows to move before the stage's first layer runs.
        in_order: ``current`` and ``selected`` are the same tokens in the same, rising order.
        revived: of the tokens to compute, those of earlier steps, summed over the batch.
        at: the positions whose states are read for ``current``, where these may be fillers though there is one row.

    Counts that the host does not know are tensors (batch,) on the device.
    """

    current: Tensor
    selected: Tensor
    valid: Tensor | None
    counts: list[int] | Tensor
    computed: list[int] | Tensor
    slots: slice | Tensor
    moves: tuple[Tensor, Tensor] | None = None
    in_order: bool = False
    revived: int | Tensor = 0
    at: Tensor | None = None

    @property
    def reads(self) -> Tensor:
        """(batch, queries) positions whose states are those of ``current``; any for a filler."""
        return self.current if self.at is None else self.at


class Stage:
    """The table of one stage: token by slot and slot by token.

    The selected tokens are kept in front, so attention reads a plain slice ``keys[:, :selected]``: nothing is
    gathered and nothing masked out. A step that selects differently moves only the rows that changed sides, once
    for all layers of the stage. Which rows these are is worked out here, on the host, from one copy of the chosen
    positions: the step's one wait for the device.

    Example, batch 1, a prompt of six tokens of which the prefill kept 0, 2, 3 and 5::

        slot      0  1  2  3
        position  0  2  3  5                selected = 4, filled = 4

    Token 6 arrives; of seven candidates 0, 1, 5 and 6 are selected. Slots 1 and 2 hold tokens that are not (2 and
    3): they move behind the front, and the tokens to compute, 1 (revived) and 6 (new), are written into the holes::

        slot      0  1  2  3  4  5
        position  0  _  _  5  2  3          moved
        position  0  1  6  5  2  3          written by each layer: selected = 4, filled = 6

    Tokens 2 and 3 keep their keys and values behind the front for a later step. Token 4 has no slot here: its
    hidden state waits in the Aux Cache.

    Args:
        layers: the layers of the stage, where they are known beforehand.
    """

    def __init__(self, layers: Sequence[int] = ()) -> None:
        self.layers = layers
        self.end = 0  # slots in use, of the longest row of the batch
        self.held: list[int] = []  # tokens with keys and values here, of each row
        self.counts: list[int] = []  # tokens of each row that the latest step attended to
        self.position: Tensor | None = None  # (batch, selected) of the latest step, in slot order, on the device
        self._table: tuple[Slots, Slots] | None = None  # (batch, slots) position, (batch, positions) slot

    def append(self, new: int, position: Tensor, valid: Tensor | None, counts: list[int]) -> Plan:
        """The first stage: every token is computed and selected, slots are positions.

        Args:
            new: tokens of this step.
            position: (batch, tokens) all positions so far, rising.
            valid: (batch, tokens) False for padding; None without padding.
            counts: candidates of each row of the batch.
        """
        tokens = position.shape[1]
        self.end, self.counts, self.held = tokens, counts, counts
        return Plan(
            current=position[:, tokens - new :],
            selected=position,
            valid=valid,
            counts=counts,
            computed=[min(new, count) for count in counts],
            slots=slice(tokens - new, tokens),
            in_order=tokens == new,
        )

    @torch.inference_mode(False)  # see rows.room_for
    def begin(self, chosen: Tensor | None, counts: list[int] | Tensor) -> Plan:
        """A later stage in the prefill: the chosen tokens take the first slots in the text's order.

        Args:
            chosen: (batch, keys) positions in any order; fillers where a row has fewer.
            counts: how many each row has.
        """
        assert chosen is not None
        assert isinstance(counts, list)
        current = chosen.sort(dim=1).values
        keys = current.shape[1]
        self.end, self.counts, self.held, self.position = keys, counts, list(counts), current
        ragged = min(counts) < keys
        return Plan(current, current, current >= 0 if ragged else None, counts, counts, slice(0, keys), in_order=True)

    @torch.inference_mode(False)
    def extend(self, new: Tensor) -> Plan:
        """A later stage where nothing is revived: the tokens it has and the new ones, (batch, new) positions."""
        assert self.position is not None
        self.position = torch.cat([self.position, new], dim=1)
        self.end, count = self.position.shape[1], new.shape[1]
        self.counts = [number + count for number in self.counts]
        self.held = [number + count for number in self.held]
        return Plan(
            current=new,
            selected=self.position,
            valid=self.position >= 0 if min(self.counts) < self.end else None,
            counts=self.counts,
            computed=[count] * len(self.counts),
            slots=slice(self.end - count, self.end),
        )

    @torch.inference_mode(False)
    def select(
        self,
        chosen: Tensor | None,
        counts: list[int] | Tensor,
        start: int,
        tokens: int,
        most: int | None = None,
        attend_to_all: bool = False,
        like: Tensor | None = None,
    ) -> Plan:
        """A later stage in a decoding step: find who has to be computed, make room in front, say where all goes.

        Args:
            chosen: (batch, keys) positions, each row's best first and its fillers last. None: what the last step
                selected, and the new tokens.
            counts: how many of them each row selects.
            start: tokens before this step.
            tokens: how many positions there are.
            most: at most so many older tokens are revived, the best.
            attend_to_all: everything computed is selected; ``chosen`` only says what is revived.
            like: a tensor on the device of the plan's tensors.
        """
        device = (chosen if chosen is not None else like).device  # type: ignore[union-attr]
        (position, slot), wanted = self._tables(tokens, chosen)
        new = numpy.arange(start, tokens)
        if wanted is None and attend_to_all and min(self.held) == self.end:  # the new tokens come behind, nothing moves
            assert like is not None
            behind = numpy.arange(self.end, self.end + len(new))
            position[:, behind], slot[:, new] = new, behind
            return self.extend(like[:, -len(new) :])
        moves, written, selected = [], [], []
        for row, latest in enumerate(self.counts):
            picked = numpy.append(position[row, :latest], new) if wanted is None else wanted[row, : counts[row]]
            missing = picked[slot[row, picked] < 0]
            revived = missing[missing < start][:most]
            missing = numpy.sort(numpy.concatenate([revived, missing[missing >= start]]))
            here = position[row][position[row] >= 0] if attend_to_all else picked[slot[row, picked] >= 0]
            moves.append(self._place(row, here, missing, position, slot))
            written.append((missing, slot[row, missing], len(revived)))
            selected.append(len(here) + len(missing))
        self.counts = selected
        keys = max(self.counts)
        arrays = [
            _filled_up([source for source, _ in moves], self.end),  # a slot that no token uses
            _filled_up([destination for _, destination in moves], self.end),
            _filled_up([current for current, _, _ in written], FILLER),
            _filled_up([slots for _, slots, _ in written], self.end),
            position[:, :keys],
            numpy.array(self.counts)[:, None],
        ]
        packed = torch.from_numpy(numpy.concatenate(arrays, axis=1)).to(device, non_blocking=True)
        sizes = [array.shape[1] for array in arrays]
        source, destination, current, slots, self.position, count = packed.split(sizes, dim=1)
        valid = torch.arange(keys, device=device) < count if min(self.counts) < keys else None
        _, first, _ = written[0]
        in_a_stretch = len(written) == 1 and first[-1] - first[0] == len(first) - 1
        return Plan(
            current=current,
            selected=self.position,
            valid=valid,
            counts=self.counts,
            computed=[len(current) for current, _, _ in written],
            revived=sum(count for _, _, count in written),
            slots=slice(int(first[0]), int(first[-1]) + 1) if in_a_stretch else slots,
            moves=(source, destination) if source.shape[1] else None,
        )

    def _place(self, row: int, here: Slots, missing: Slots, position: Slots, slot: Slots) -> tuple[Slots, Slots]:
        """Bring the tokens ``here`` and the ``missing`` ones to the front of a row: what has to move, and where to."""
        front = len(here) + len(missing)
        at = slot[row, here]
        taken = numpy.zeros(front, dtype=bool)
        taken[at[at < front]] = True
        holes = numpy.flatnonzero(~taken)
        behind = at[at >= front]  # selected, but not in front: as many holes are theirs, the others the missing ones'
        residents = holes[position[row, holes] >= 0]
        source = numpy.concatenate([residents, behind])
        moved = position[row, source]
        position[row, source] = FILLER
        homes = front + numpy.flatnonzero(position[row, front:] < 0)[: len(residents)]
        destination = numpy.concatenate([homes, holes[: len(behind)]])
        position[row, destination], slot[row, moved] = moved, destination
        position[row, holes[len(behind) :]], slot[row, missing] = missing, holes[len(behind) :]
        self.end = max(self.end, front, *(homes + 1))
        self.held[row] += len(missing)
        return source, destination

    def _tables(self, tokens: int, chosen: Tensor | None) -> tuple[tuple[Slots, Slots], Slots | None]:
        """The table on the host, with room for every position, and ``chosen``."""
        if self._table is not None:
            wanted = None if chosen is None else _on_the_host(chosen)[0]
        else:  # the first step, which always chooses
            assert self.position is not None
            assert chosen is not None
            kept, wanted = _on_the_host(self.position, chosen)  # (batch, kept), fillers in front
            slot = numpy.full((len(kept), tokens), FILLER)
            for row, positions in enumerate(kept):
                at = numpy.flatnonzero(positions >= 0)
                slot[row, positions[at]] = at
            room = ((0, 0), (0, tokens - kept.shape[1]))
            self._table = numpy.pad(kept, room, constant_values=FILLER), slot
        position, slot = self._table
        if slot.shape[1] < tokens:
            room = ((0, 0), (0, tokens + tokens // 8 - slot.shape[1]))
            position, slot = (numpy.pad(table, room, constant_values=FILLER) for table in self._table)
            self._table = position, slot
        return self._table, wanted

    def tokens_held(self) -> int | Tensor:
        """Tokens with keys and values here, of the whole batch."""
        return sum(self.held)

    @torch.inference_mode(False)
    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        rows = index.tolist()
        if self.position is not None:
            self.position = self.position.index_select(0, index.to(self.position.device))
        if self._table is not None:
            self._table = self._table[0][rows], self._table[1][rows]
        self.counts, self.held = [self.counts[row] for row in rows], [self.held[row] for row in rows]


def _on_the_host(*tensors: Tensor) -> list[Slots]:
    """Tensors (batch, n) of one device, in one copy: the step's one wait."""
    together = tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
    sizes = [tensor.shape[1] for tensor in tensors]
    return numpy.split(together.cpu().numpy(), numpy.cumsum(sizes[:-1]), axis=1)


def _filled_up(rows: list[Slots], filler: int) -> Slots:
    """Rows of different lengths as one array, filled up in front."""
    longest = max(len(row) for row in rows)
    padded = [
        row if len(row) == longest else numpy.pad(row, (longest - len(row), 0), constant_values=filler) for row in rows
    ]
    return numpy.stack(padded)
