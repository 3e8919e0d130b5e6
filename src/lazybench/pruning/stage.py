"""Which tokens a stage's layers have computed, in which slot of their buffers each lies.

A *stage* is the run of layers between two prunings: all of them compute the same tokens, so one table serves them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from lazybench.pruning.step import Step

FILLER = -1  # a position, slot or token that is not there: it fills up the shorter rows of a batch


@dataclass
class Plan:
    """One stage in one step: what it computes, what it attends to, and where the new keys and values go.

    Attributes:
        current: (batch, queries) positions of the tokens to compute, rising; fillers in front.
        selected: (batch, keys) positions of the tokens to attend to, in slot order.
        valid: (batch, keys) False where a key is not selected (padding, fillers); None when all are.
        counts: selected tokens of each row of the batch.
        computed: tokens to compute, summed over the batch, fillers left out.
        slots: where the keys and values of ``current`` go: a stretch, or (batch, queries) slots.
        moves: (source, destination) slots, each (batch, n), of rows to move before the stage's first layer runs.
        in_order: ``current`` and ``selected`` are the same tokens in the same, rising order.
        revived: of the tokens to compute, those of earlier steps, summed over the batch.
    """

    current: Tensor
    selected: Tensor
    valid: Tensor | None
    counts: list[int]
    computed: int
    slots: slice | Tensor
    moves: tuple[Tensor, Tensor] | None = None
    in_order: bool = False
    revived: int = 0


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
        self.counts: list[int] = []  # tokens of each row that the latest step attended to
        self.position: Tensor | None = None  # (batch, selected) of the latest step, in slot order, on the device
        # of each row, once a step has selected anew; on the host
        self._tokens: list[array[int]] = []  # by slot
        self._slots: list[dict[int, int]] = []  # by token
        self._front: list[set[int]] = []  # tokens that the latest step attended to

    @property
    def held(self) -> list[int]:
        """Tokens with keys and values here, of each row."""
        return [len(slots) for slots in self._slots] or self.counts

    @torch.inference_mode(False)  # see kv.room_for
    def begin(self, current: Tensor, counts: list[int]) -> Plan:
        """In the prefill the tokens at the positions ``current`` take the first slots in the text's order.

        Args:
            current: (batch, keys), rising; fillers in front where a row has fewer.
            counts: how many each row has.
        """
        keys = current.shape[1]
        self.end, self.counts, self.position = keys, counts, current
        valid = current >= 0 if min(counts) < keys else None
        return Plan(current, current, valid, counts, sum(counts), slice(0, keys), in_order=True)

    @torch.inference_mode(False)
    def extend(self, token: int) -> Plan:
        """A decoding step where nothing is revived: the tokens that are here, and the new one."""
        assert self.position is not None
        self.position = pad(self.position, (0, 1), value=token)
        self.end, self.counts = self.end + 1, [count + 1 for count in self.counts]
        return Plan(
            current=self.position[:, -1:],
            selected=self.position,
            valid=self.position >= 0 if min(self.counts) < self.end else None,
            counts=self.counts,
            computed=len(self.counts),
            slots=slice(self.end - 1, self.end),
        )

    @torch.inference_mode(False)
    def select(
        self, step: Step, chosen: Tensor | None, counts: list[int], most: int | None, attend_to_all: bool
    ) -> Plan:
        """A later stage in a decoding step: find who has to be computed, make room in front, say where all goes.

        Args:
            chosen: (batch, keys) positions, each row's best first and its fillers last. None: what the last step
                selected, and the new token.
            counts: how many of them each row selects.
            most: at most so many older tokens are revived, the best.
            attend_to_all: everything computed is selected; ``chosen`` only says what is revived.
        """
        new, device = step.start, step.plan.current.device
        wanted = self._read(chosen)
        if wanted is None and attend_to_all and min(self.held) == self.end:  # the new token comes behind, nothing moves
            for by_slot, slots, front in zip(self._tokens, self._slots, self._front, strict=True):
                slots[new] = self.end
                by_slot.append(new)
                front.add(new)
            return self.extend(new)
        rows, revived = [], 0
        for row, (slots, front) in enumerate(zip(self._slots, self._front, strict=True)):
            picked = [new] if wanted is None else wanted[row][: counts[row]]
            entering = set(picked) - front
            leaving = set() if wanted is None or attend_to_all else front.difference(picked)
            older = entering.difference(slots, (new,))
            if most is not None and len(older) > most:
                best = set([token for token in picked if token in older][:most])
                entering, older = entering - (older - best), best
            if attend_to_all:
                entering = older | {new} | (slots.keys() - front)
            rows.append(self._place(row, entering, leaving, sorted(older | {new})))
            revived += len(older)
        self.counts, self.end = [len(front) for front in self._front], max(map(len, self._tokens))
        source, destination, current, written, self.position, count = self._on_device(rows, device)
        keys = self.position.shape[1]
        valid = torch.arange(keys, device=count.device) < count if min(self.counts) < keys else None
        return Plan(
            current=current,
            selected=self.position,
            valid=valid,
            counts=self.counts,
            computed=sum(len(computed) for _, _, computed, _ in rows),
            revived=revived,
            slots=written,
            moves=(source, destination) if source.shape[1] else None,
        )

    def _place(
        self, row: int, entering: set[int], leaving: set[int], missing: list[int]
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Bring who enters the front of a row there, and who leaves it behind.

        Returns:
            Slots to move from and to; the ``missing`` tokens, and the slots that they get.
        """
        tokens, slots, front = self._tokens[row], self._slots[row], self._front[row]
        before, size = len(front), len(front) - len(leaving) + len(entering)
        tokens.extend([FILLER] * (len(slots) + len(missing) - len(tokens)))
        taken = {slots[token] for token in entering if token in slots}
        left = {slots[token] for token in leaving}
        holes = sorted(slot for slot in (left | {*range(before, size)}) - taken if slot < size)
        residents = [slot for slot in holes if tokens[slot] != FILLER]
        behind = sorted(slot for slot in (taken | {*range(size, before)}) - left if slot >= size)
        source = residents + behind
        moved = [tokens[slot] for slot in source]
        for slot in source:
            tokens[slot] = FILLER
        homes, home = [], size - 1
        for _ in residents:
            home = tokens.index(FILLER, home + 1)
            homes.append(home)
        destination, written = homes + holes[: len(behind)], holes[len(behind) :]
        for token, slot in zip(moved + missing, destination + written, strict=True):
            tokens[slot], slots[token] = token, slot
        front -= leaving
        front |= entering
        return source, destination, missing, written

    def _read(self, chosen: Tensor | None) -> list[list[int]] | None:
        """``chosen`` on the host; the first step, which always chooses, reads the prefill's table too."""
        if self._slots:
            return None if chosen is None else chosen.tolist()
        assert self.position is not None
        assert chosen is not None
        kept, wanted = _on_the_host(self.position, chosen)
        for positions in kept:  # fillers in front
            self._tokens.append(array("q", positions))
            self._slots.append({token: slot for slot, token in enumerate(positions) if token != FILLER})
            self._front.append(set())
        return wanted

    def _on_device(self, rows: Sequence[Sequence[Sequence[int]]], device: torch.device) -> Sequence[Tensor]:
        """What ``_place`` says of each row, filled up in front, its front's tokens and their number, in one copy."""
        fillers = (self.end, self.end, FILLER, self.end)  # a slot that no token uses
        longest = [max(map(len, parts)) for parts in zip(*rows, strict=True)]
        keys, packed = max(self.counts), array("q")
        for row, parts in enumerate(rows):
            for part, length, filler in zip(parts, longest, fillers, strict=True):
                packed.extend(chain([filler] * (length - len(part)), part))
            packed.extend(self._tokens[row][:keys])
            packed.extend([FILLER] * (keys - len(self._tokens[row])))
            packed.append(self.counts[row])
        together = torch.frombuffer(packed, dtype=torch.int64).view(len(rows), -1).to(device, non_blocking=True)
        return together.split([*longest, keys, 1], dim=1)

    @torch.inference_mode(False)
    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        rows = index.tolist()
        if self.position is not None:
            self.position = self.position.index_select(0, index.to(self.position.device))
        if self._slots:
            self._tokens = [self._tokens[row][:] for row in rows]
            self._slots = [dict(self._slots[row]) for row in rows]
            self._front = [set(self._front[row]) for row in rows]
        self.counts = [self.counts[row] for row in rows]


def _on_the_host(kept: Tensor, chosen: Tensor) -> tuple[list[list[int]], list[list[int]]]:
    """Two tensors (batch, n) of one device, in one copy: the step's one wait."""
    rows = torch.cat([kept, chosen], dim=1).tolist()
    return [row[: kept.shape[1]] for row in rows], [row[kept.shape[1] :] for row in rows]
