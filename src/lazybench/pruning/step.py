"""One forward pass: the stage it is in, and what each layer of that stage needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lazybench.pruning.masks import MaskRule, Visibility
from lazybench.pruning.stage import Placement


class Step:
    """State of one forward pass between its first and its last layer.

    Attributes:
        start: tokens before this step.
        new: tokens of this step.
        place: what the current stage computes and attends to.
        importance: (batch, keys) of the pruning layer that ran last.
    """

    def __init__(self, start: int, new: int, place: Placement) -> None:
        self.start, self.new = start, new
        self.importance: Tensor | None = None
        self.inputs: dict[
            int, tuple[tuple, Tensor]
        ] = {}  # by id: the name, and the tensor so that its id stays its own
        self.enter(place)

    @property
    def tokens(self) -> int:
        return self.start + self.new

    @property
    def is_first_stage(self) -> bool:
        return self._stages_entered == 1

    def enter(self, place: Placement) -> None:
        """Go on to the next stage: everything made for the last one is void."""
        self._stages_entered = getattr(self, "_stages_entered", 0) + 1
        self.place = place
        self.gathered: dict[tuple, Tensor] = {}
        self._visibilities: dict[MaskRule, Visibility] = {}

    def visibility(self, rule: MaskRule) -> Visibility:
        """Who sees whom under ``rule``, made once for all layers of the stage."""
        if rule not in self._visibilities:
            place = self.place
            self._visibilities[rule] = Visibility(
                rule, place.current, place.selected, place.valid, place.square, self.tokens
            )
        return self._visibilities[rule]

    def valid_on(self, like: Tensor) -> Tensor | None:
        valid = self.place.valid
        return None if valid is None else valid.to(like.device)


@dataclass
class LayerView:
    """What a layer hands to its attention function in place of a mask."""

    step: Step
    visibility: Visibility
    wants_importance: bool
