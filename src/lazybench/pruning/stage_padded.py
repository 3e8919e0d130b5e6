"""A stage whose decoding steps have fixed shapes and never wait for the device, where its table lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lazybench.pruning.rows import pick_batch
from lazybench.pruning.stage import FILLER, Plan, Stage


class PaddedStage(Stage):
    """For ``Revival(most=M, attend="computed", padded=True)``: what was computed is attended to for good.

    So nothing moves, and each step appends M + 1 slots: those of the M best tokens that the budget wants and that
    lack keys here, fillers where there are fewer, and the new token's. Fillers are computed like tokens, at the state
    of position 0, and hidden from all (``Plan.valid``); they cost M + 1 less what is revived in slots and rows.

    Counts are tensors too, so a budget that needs them on the host (``FallingRatio``) or that depends on the scores
    (chunks, ``Mass``) still waits; a share of what entered, of the context, or a number of tokens does not.
    """

    def __init__(self, layers: Sequence[int] = ()) -> None:
        super().__init__(layers)
        self._here: Tensor | None = None  # (batch, positions + 1) True: computed here; the last is the fillers'
        self._real: Tensor | None = None  # (batch,) tokens with keys and values here, fillers left out

    @torch.inference_mode(False)  # see rows.room_for
    def select(
        self,
        chosen: Tensor | None,
        counts: list[int] | Tensor,
        start: int,
        tokens: int,
        most: int | None = None,
        attend_to_all: bool = True,
        like: Tensor | None = None,
    ) -> Plan:
        """As ``Stage.select``, on the device. A prompt's later turn, whose shapes are its own, does wait."""
        assert self.position is not None
        assert most is not None
        if self._real is None:
            self._real = (self.position >= 0).sum(dim=1)
        assert like is not None
        here, new = self._membership(tokens), tokens - start
        batch, size = here.shape
        here[:, start:tokens] = True  # in a decoding step the one new token is always chosen
        current, revived = like[:, -1:], None
        if new > 1:
            current = torch.arange(start, tokens, device=here.device).expand(batch, -1)
        if chosen is not None:
            missing = ~here.gather(1, index := chosen.remainder(size))
            rank = missing.cumsum(dim=1)  # from 1, the best first
            column = torch.where(missing & (rank <= most), rank - 1, most)  # the last column is cut off
            picked = chosen.new_full((batch, most + 1), FILLER).scatter_(1, column, chosen)[:, :most]
            revived = rank[:, -1].clamp(max=most)
            if new > 1:
                wanted = torch.zeros_like(here).scatter_(1, index, True)[:, start:tokens]
                here[:, start:tokens] = wanted
                current = current.where(wanted, FILLER)
            current = torch.cat([picked, current], dim=1).sort(dim=1).values
            here.scatter_(1, current.remainder(size), True)
        computed = torch.full_like(self._real, new) if revived is None else revived + new
        if new > 1:  # shapes of their own
            computed = (current >= 0).sum(dim=1)
            current = current[:, -int(computed.max()) :]
        self._real = self._real + computed
        self.position = torch.cat([self.position, current], dim=1)
        before, self.end = self.end, self.position.shape[1]
        self.held = [slots + current.shape[1] for slots in self.held]
        return Plan(
            current=current,
            selected=self.position,
            valid=self.position >= 0,
            counts=self._real,
            computed=computed,
            revived=0 if revived is None else revived,
            slots=slice(before, self.end),
            at=current.clamp(min=0),
        )

    def tokens_held(self) -> int | Tensor:
        return super().tokens_held() if self._real is None else self._real.sum()

    def _membership(self, tokens: int) -> Tensor:
        """``_here``, with room for every position."""
        known = self._here
        if known is None or known.shape[1] <= tokens:
            assert self.position is not None
            size = tokens + tokens // 8 + 17
            self._here = torch.zeros(len(self.position), size, dtype=torch.bool, device=self.position.device)
            self._here[:, -1] = True
            self._here.scatter_(1, self.position.remainder(size), True)
        assert self._here is not None
        return self._here

    @torch.inference_mode(False)
    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._here, self._real = (
            None if table is None else pick_batch(table, index) for table in (self._here, self._real)
        )
