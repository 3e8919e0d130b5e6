"""The schedules that a search may try: where the pruning layers stand, and how much each keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazybench.config import TuneSettings
from lazybench.errors import UserError
from lazybench.pruning.schedule import PruningSchedule

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def check_stages(stages: int, num_layers: int) -> None:
    """Refuse more pruning layers than the model has room for.

    Raises:
        UserError: after the last layer there is nothing left to save.
    """
    if stages > num_layers - 1:
        raise UserError(f"tune.stages={stages} is too many for {num_layers} layers; at most {num_layers - 1}")


def suggest_schedule(trial: BaseTrial, num_layers: int, settings: TuneSettings) -> PruningSchedule:
    """One schedule from a space that is the same in every trial, so that the sampler learns from all of them.

    ``gap_i`` in (0, 1) places pruning layer i: that share of the room that the layers before it have left,
    one layer kept free for each that is still to come. So the layers rise strictly, whatever is drawn.
    """
    layers: list[int] = []
    first = 0
    for stage in range(settings.stages):
        last = num_layers - 2 - (settings.stages - 1 - stage)  # after the last layer nothing is left to save
        share = trial.suggest_float(f"gap_{stage}", 0.0, 1.0)
        layers.append(min(last, first + int(share * (last - first + 1))))
        first = layers[-1] + 1
    keep = [trial.suggest_float(f"keep_{stage}", settings.least_keep, 1.0) for stage in range(settings.stages)]
    return PruningSchedule(tuple(layers), tuple(round(ratio, 2) for ratio in keep))


def parameters_of(schedule: PruningSchedule, num_layers: int) -> dict[str, float]:
    """The drawn numbers that lead to ``schedule``: a search can start from a schedule that is known."""
    parameters: dict[str, float] = {}
    first = 0
    stages = len(schedule.pruning_layers)
    for stage, (layer, keep) in enumerate(zip(schedule.pruning_layers, schedule.keep, strict=True)):
        last = num_layers - 2 - (stages - 1 - stage)
        parameters[f"gap_{stage}"] = (layer - first + 0.5) / (last - first + 1)
        parameters[f"keep_{stage}"] = keep
        first = layer + 1
    return parameters
