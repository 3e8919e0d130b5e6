"""One forward pass: which stage it is in, who was scored, who sees whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lazybench.pruning.attention import MaskRule, Visibility
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
        self.stages_entered = 0
        self.rows_that_go_on: Tensor | None = None  # chosen before the pruning layer's MLP, to be used after it
        # by id: what layers share, with the tensor itself so that its id stays its own
        self.inputs: dict[int, tuple[tuple, Tensor]] = {}

    @property
    def tokens(self) -> int:
        return self.start + self.new

    @property
    def is_first_stage(self) -> bool:
        return self.stages_entered == 1

    def enter(self, stage: Stage, plan: Plan) -> None:
        """Go on to the next stage: everything made for the last one is void."""
        self.stage, self.plan = stage, plan
        self.stages_entered += 1
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
