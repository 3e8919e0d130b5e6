"""LazyLLM as the paper has it: the engine under a schedule."""

from __future__ import annotations

from transformers import PreTrainedModel

from lazybench.errors import UserError, shown
from lazybench.pruning.attach import parts_of
from lazybench.pruning.engine import Pruned
from lazybench.pruning.schedule import PruningSchedule


class LazyLLM(Pruned):
    """Dynamic token pruning (LazyLLM, arXiv 2407.14057) for everything ``model.generate`` does inside.

        with LazyLLM(model, schedule) as lazy:
            tokens = model.generate(**inputs, max_new_tokens=64)
        lazy.trace.prompt_tokens_computed_mean

    Args:
        model: a decoder-only ``transformers`` model in eval mode.
        schedule: where to prune and how many tokens to keep, or the name of a preset (``"paper"``).

    Raises:
        UserError: as ``Pruned``; an unknown preset.
    """

    def __init__(self, model: PreTrainedModel, schedule: PruningSchedule | str) -> None:
        config = parts_of(model, "LazyLLM").config
        if isinstance(schedule, str):
            schedule = PruningSchedule.preset(schedule)
        if not isinstance(schedule, PruningSchedule):
            raise UserError(f"schedule={shown(schedule)} must be a PruningSchedule or a preset's name, as in 'paper'")
        self.schedule = schedule.build(config)
        super().__init__(model, self.schedule.policy(name="LazyLLM"))
