"""What a layer gets beside its hidden states, with the rows of the tokens that it computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lazybench.pruning.kv import pick_batch, room_for, take_rows
from lazybench.pruning.step import Step


class TokenInputs:
    """Rotary embeddings, position ids and the like: whatever has one row per token.

    A token that comes back in a later step needs its own rows then, so they are kept by position, once for all
    layers that get the same tensor. Where nothing comes back, they are cut from what the layer got.

    Args:
        kept: tokens may come back.
    """

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self._rows: dict[tuple, Tensor] = {}

    def cut_all(self, step: Step, layer: int, values: dict[str, Any]) -> dict[str, Any]:
        """``cut`` for all that a layer got; the layers of a stage mostly get the same, which is cut once."""
        key = tuple(map(id, values.values()))
        if key not in step.cut:  # with the values themselves, so that their ids stay theirs
            step.cut[key] = values, {name: self.cut(step, (layer, name), value) for name, value in values.items()}
        return step.cut[key][1]

    def cut(self, step: Step, name: tuple, value: Any) -> Any:
        """``value`` with the rows of the current tokens. Containers are walked; all else is returned as it is.

        A tensor counts as one row per token if its second axis is as long as the step has new tokens (or its third,
        behind one of length 1, as a factor of all heads has it), and its first as long as the batch, or 1.

        Args:
            name: where the layer got it, the same in every step.
        """
        if isinstance(value, tuple | list):
            return type(value)(self.cut(step, (*name, i), item) for i, item in enumerate(value))
        if isinstance(value, dict):
            return {key: self.cut(step, (*name, key), item) for key, item in value.items()}
        batch = step.plan.current.shape[0]
        if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] not in (1, batch):
            return value
        of_heads = (*name, "of heads")  # a single new token leaves open which axis is the tokens': as it was before
        if of_heads in self._rows or (value.shape[1] != step.new and value.shape[1:3] == (1, step.new)):
            return self.cut(step, of_heads, value.transpose(1, 2)).transpose(1, 2)
        if value.shape[1] != step.new:
            return value
        known = step.inputs.get(id(value))
        if known is None:
            # the same tensor reaches every layer: store it once, under the first layer's name
            known = step.inputs[id(value)] = (name, value)
            if self._kept:
                self._store(step, name, value.detach().expand(batch, *value.shape[1:]))
        if step.is_first_stage or not step.scores_anew:  # all new tokens go on, and none comes back
            return value
        source = known[0]
        if source not in step.gathered:
            rows = self._rows[source] if self._kept else value.expand(batch, *value.shape[1:])
            step.gathered[source] = take_rows(rows, step.plan.current.to(rows.device))
        return step.gathered[source]

    def _store(self, step: Step, name: tuple, rows: Tensor) -> None:
        fill = None if rows.shape[0] == 1 else 0
        buffer = self._rows[name] = room_for(self._rows.get(name), step.tokens, rows, fill)
        buffer[:, step.start : step.tokens] = rows

    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        self._rows = {name: pick_batch(buffer, index) for name, buffer in self._rows.items()}
