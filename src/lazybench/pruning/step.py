"""One forward pass: which stage it is in, who was scored, who sees whom, and what a layer gets beside hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lazybench.pruning.attention import MaskRule, Visibility
from lazybench.pruning.kv import pick_batch, room_for, take_rows
from lazybench.pruning.stage import Plan, Stage


class Step:
    """State of one forward pass between its first and its last layer.

    Attributes:
        start: tokens before this step.
        new: tokens of this step.
        selects: tokens go on stage by stage in this step. A policy that revives nothing does so in the prefill only;
            its later steps go on with what they have.
        scores_anew: and they are scored for it; if not, each stage takes its last selection and the new tokens.
        settles: whether tokens are pruned after a layer, given its scores; None: after each that prunes.
        stage, plan: the current stage, and what it computes and attends to.
        layer: the layer that brought its keys last.
        prunings: how many prunings this step has passed.
        scores: by scored layer, its scores and the positions of its keys, both (batch, keys).
    """

    def __init__(
        self, start: int, new: int, selects: bool, scores_anew: bool, settles: Callable[[Tensor], bool] | None = None
    ) -> None:
        self.start, self.new, self.settles = start, new, settles
        self.selects, self.scores_anew = selects, selects and scores_anew
        self.stage: Stage
        self.plan: Plan
        self.layer = -1
        self.prunings = 0
        self.scores: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows_that_go_on: Tensor | None = None  # chosen before the pruning layer's MLP, to be used after it
        # by id: what layers share, with the tensor itself so that its id stays its own
        self.inputs: dict[int, tuple[tuple, Tensor]] = {}

    @property
    def tokens(self) -> int:
        return self.start + self.new

    def enter(self, stage: Stage, plan: Plan) -> None:
        """Go on to the next stage: everything made for the last one is void."""
        self.stage, self.plan = stage, plan
        self.gathered: dict[tuple, Tensor] = {}
        self.cut: dict[tuple, tuple[dict[str, Any], dict[str, Any]]] = {}  # what layers got, and what they get
        self._visibilities: dict[tuple[MaskRule, int, int], Visibility] = {}

    def visibility(self, rule: MaskRule, evicted: int = 0, forgotten: int = 0) -> Visibility:
        """Who sees whom under ``rule``, made once for all layers of the stage that lack the same keys.

        Args:
            evicted: keys of the prompt that a retention left out of the layer's cache.
            forgotten: slots at the front that it lacks, older than its window.
        """
        key = (rule, evicted, forgotten)
        if key not in self._visibilities:
            plan = self.plan
            selected, valid = plan.selected[:, forgotten:], plan.valid
            if valid is not None and forgotten:
                valid = valid[:, forgotten:]
            if evicted:  # which ones depends on the head; all that are left are older than every query
                selected = selected[:, evicted:].masked_fill(selected[:, evicted:] < self.start, 0)
            self._visibilities[key] = Visibility(rule, plan.current, selected, valid, plan.in_order, self.tokens)
        return self._visibilities[key]


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
                rows = value.detach().expand(batch, *value.shape[1:])
                room = self._rows[name] = room_for(self._rows.get(name), step.tokens, rows, None if batch == 1 else 0)
                room[:, step.start : step.tokens] = rows
        if not (step.prunings and step.scores_anew):  # all new tokens go on, and none comes back
            return value
        source = known[0]
        if source not in step.gathered:
            rows = self._rows[source] if self._kept else value.expand(batch, *value.shape[1:])
            step.gathered[source] = take_rows(rows, step.plan.current.to(rows.device))
        return step.gathered[source]

    def reorder(self, index: Tensor) -> None:
        """Rows of the batch by ``index`` (beam search)."""
        self._rows = {name: pick_batch(buffer, index) for name, buffer in self._rows.items()}
