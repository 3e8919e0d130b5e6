"""Which tokens a stage's layers have computed, and in which slot of their key and value buffers each lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazybench.pruning.rows import largest, pick_batch, put_rows, room_for, take_rows


@dataclass
class Placement:
    """One stage in one step: what it computes, what it attends to, and where the new keys and values go.

    Attributes:
        current: (batch, queries) positions of the tokens to compute, rising; -1 in front fills a ragged batch.
        selected: (batch, keys) positions of the tokens to attend to, in slot order.
        valid: (batch, keys) False where a key is not selected (padding, fillers); None when all are.
        counts: selected tokens of each row of the batch.
        computed: tokens to compute of each row, fillers left out.
        rows: the slots of ``current``.
        moves: (destination, source) slots, each (batch, n): rows to exchange once ``current`` is written, so
            that the selected tokens lie in front; None when they do already.
        square: ``current`` and ``selected`` are the same tokens in the same, rising order.
    """

    current: Tensor
    selected: Tensor
    valid: Tensor | None
    counts: list[int]
    computed: list[int]
    rows: slice
    moves: tuple[Tensor, Tensor] | None = None
    square: bool = False


class Stage:
    """The layers between two prunings: all have computed the same tokens, so one table serves them all.

    Tokens take slots in the order in which they are computed, and the selected ones are kept in front:
    attention reads a plain slice ``keys[:, :selected]``, nothing is gathered and nothing masked out.
    A step that selects differently exchanges only the rows that changed sides.

    Example, batch 1, a prompt of six tokens of which the prefill kept 0, 2, 3 and 5::

        slot      0  1  2  3
        position  0  2  3  5                selected = 4, filled = 4

    Token 6 arrives; of seven candidates 0, 1, 5 and 6 are selected. 1 (revived) and 6 (new) have no slot yet:
    they are computed and appended. Slots 1 and 2 hold unselected tokens (holes), slots 4 and 5 selected ones
    behind the front of four: the pairs are exchanged, and the front is the selection again::

        slot      0  1  2  3  4  5
        position  0  2  3  5  1  6          appended
        position  0  1  6  5  2  3          selected = 4, filled = 6

    Tokens 2 and 3 keep their keys and values behind the front for a later step. Token 4 has no slot here: its
    hidden state waits in the Aux Cache.
    """

    def __init__(self) -> None:
        self.filled = 0
        self.counts: list[int] = []  # selected tokens of each row of the batch, in the latest step
        self.position: Tensor | None = None  # (batch, slots) the token in each slot, -1 for a filler
        self.slot: Tensor | None = None  # (batch, positions) the slot of each token, -1: not computed here

    def append(self, new: int, position: Tensor, valid: Tensor | None, counts: list[int]) -> Placement:
        """The first stage: every token is computed and selected, slots are positions.

        Args:
            new: tokens of this step.
            position: (batch, tokens) all positions so far, rising.
            valid: (batch, tokens) False for padding; None without padding.
            counts: candidates of each row of the batch.
        """
        start, self.filled = self.filled, position.shape[1]
        return Placement(
            current=position[:, start:],
            selected=position,
            valid=valid,
            counts=counts,
            computed=[min(new, count) for count in counts],
            rows=slice(start, self.filled),
            square=start == 0,
        )

    def select(self, chosen: Tensor, counts: list[int], tokens: int) -> Placement:
        """A later stage: find who has to be computed, give them slots, bring the selection to the front.

        Args:
            chosen: (batch, keys) positions to select, in any order; -1 fills a ragged batch.
            counts: how many of them each row selects.
            tokens: how many positions there are.
        """
        keys, first = chosen.shape[1], self.filled
        ragged = min(counts) < keys
        self.counts = counts
        self.slot = room_for(self.slot, tokens, chosen, fill=-1)
        at = take_rows(self.slot, chosen)
        real = chosen >= 0
        missing = real & (at < 0)
        if first == 0:
            computed, in_front = counts, [0] * len(counts)
        else:
            # the step's one wait for the device: how many tokens to revive decides the shapes that follow
            sums = torch.stack([missing.sum(1), (real & (at >= 0) & (at < keys)).sum(1)])
            computed, in_front = sums.tolist()
        queries = max(computed)
        current = largest(chosen, missing, queries)
        self.filled += queries
        self.position = room_for(self.position, self.filled, chosen, fill=-1)
        rows = slice(first, self.filled)
        self.position[:, rows] = current
        put_rows(self.slot, current, torch.arange(first, self.filled, device=chosen.device).expand_as(current))
        # appended tokens may lie in front already: those of a row are the last of `rows`
        in_front = [
            front + max(0, min(keys, self.filled) - (self.filled - own))
            for front, own in zip(in_front, computed, strict=True)
        ]
        exchanges = max(count - front for count, front in zip(counts, in_front, strict=True))
        moves = self._bring_to_front(chosen, exchanges) if exchanges else None
        selected = self.position[:, :keys]
        return Placement(
            current=current,
            selected=selected,
            valid=self._is_chosen(chosen, selected, tokens) if ragged else None,
            counts=counts,
            computed=computed,
            rows=rows,
            moves=moves,
            square=first == 0,
        )

    def extend(self, new: Tensor) -> Placement:
        """A later stage where nothing is revived: the tokens it has and the new ones, (batch, new) positions."""
        assert self.position is not None
        first, self.filled = self.filled, self.filled + new.shape[1]
        self.counts = [count + new.shape[1] for count in self.counts]
        self.position = room_for(self.position, self.filled, new, fill=-1)
        rows = slice(first, self.filled)
        self.position[:, rows] = new
        selected = self.position[:, : self.filled]
        return Placement(
            current=new,
            selected=selected,
            valid=selected >= 0 if min(self.counts) < self.filled else None,
            counts=self.counts,
            computed=[new.shape[1]] * len(self.counts),
            rows=rows,
        )

    def _bring_to_front(self, chosen: Tensor, exchanges: int) -> tuple[Tensor, Tensor]:
        assert self.slot is not None
        assert self.position is not None
        keys = chosen.shape[1]
        at = take_rows(self.slot, chosen).masked_fill(chosen < 0, -1)
        behind = largest(at, at >= keys, exchanges)
        taken = torch.zeros(chosen.shape[0], keys + 1, dtype=torch.bool, device=chosen.device)
        taken.scatter_(1, torch.where((at >= 0) & (at < keys), at, keys), True)
        slots = torch.arange(keys, device=chosen.device).expand(chosen.shape[0], -1)
        holes = largest(slots, ~taken[:, :keys], exchanges).masked_fill(behind < 0, -1)
        destination, source = torch.cat([holes, behind], dim=1), torch.cat([behind, holes], dim=1)
        moved = take_rows(self.position, source)
        put_rows(self.position, destination, moved)
        put_rows(self.slot, moved, destination)
        return destination, source

    @staticmethod
    def _is_chosen(chosen: Tensor, selected: Tensor, tokens: int) -> Tensor:
        """(batch, keys) whether the token in each slot of the front is one of the chosen."""
        member = torch.zeros(chosen.shape[0], tokens + 1, dtype=torch.bool, device=chosen.device)
        member.scatter_(1, torch.where(chosen < 0, tokens, chosen), True)
        member[:, tokens] = False
        return member.gather(1, torch.where(selected < 0, tokens, selected))

    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        if self.position is not None and self.slot is not None:
            self.position, self.slot = pick_batch(self.position, index), pick_batch(self.slot, index)
            self.counts = [self.counts[row] for row in index.tolist()]
