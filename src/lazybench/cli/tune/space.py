"""The space of a search: where tokens are pruned and how many stay, by depth, and a method's own choices.

It is the same in every trial, so that the sampler learns from all of them; stages beyond those drawn do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError
from lazybench.methods.base import Method
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.taper import PRESETS, Taper
from lazybench.pruning.schedule import DEPTHS
from lazybench.run.config import TuneSettings

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

GAP = (0.04, 0.4)  # share of the depth from one pruning to the next
DEEPEST = 0.95  # behind it little is left to save
CHOICES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "lazyllm": {},
    "taper": {
        "budget": ("entered", "context", "mass"),
        "window": (1, 8, 32, 64, 128),
        "heads": ("mean", "max", "query_max"),
        "pool": (1, 5, 13),
        "chunk": (1, 8, 16, 32, 64),
        "first": (0, 4, 64),
        "last_share": (0.0, 0.08, 0.15, 0.25),
        "look_back": (1, 2, 4),
        "over_layers": ("mean", "max"),
        "revive": (0, 4, 8, 16, 32),
        "every": (1, 4, 8, 16),
    },
}


def choices(method: Method, settings: TuneSettings) -> Mapping[str, Sequence[Any]]:
    """The method's own choices that the search varies.

    Raises:
        UserError: ``held`` names one that it could not vary.
    """
    own = CHOICES[method.name]
    if unknown := sorted(set(settings.held) - set(own)):
        known = f"one of {', '.join(own)}" if own else "empty: its places and keep ratios alone are searched"
        raise UserError(f"tune.held={unknown[0]} is no choice of {method.name}; allowed: {known}")
    return {name: values for name, values in own.items() if name not in settings.held}


def suggest(trial: BaseTrial, method: Method, settings: TuneSettings) -> Method:
    """``method`` with the settings of one trial."""
    stages = trial.suggest_int("stages", 1, settings.stages)
    gaps = [trial.suggest_float(f"gap_{stage}", *GAP) for stage in range(settings.stages)]
    keep = [trial.suggest_float(f"keep_{stage}", settings.least_keep, 1.0) for stage in range(settings.stages)]
    chosen = {name: trial.suggest_categorical(name, values) for name, values in choices(method, settings).items()}
    depths = [round(depth, 2) for depth in accumulate(gaps)][:stages]
    places = [(depth, round(ratio, 2)) for depth, ratio in zip(depths, keep, strict=False) if depth <= DEEPEST]
    return with_places(method, *zip(*places, strict=True), **chosen)


def with_places(method: Method, depths: Sequence[float], keep: Sequence[float], **chosen: Any) -> Method:
    """``method`` pruning there; what is not searched stays as the configuration has it."""
    places: dict[str, Any] = {"depths": tuple(depths), "keep": tuple(keep)}
    if isinstance(method, LazyLLMMethod):
        return replace(method, pruning=replace(method.pruning, layers=None, **places))
    assert isinstance(method, Taper)
    return replace(method, preset=None, **places, **chosen)


def starting_points(method: Method, settings: TuneSettings) -> list[dict[str, Any]]:
    """What is known already, as the numbers to draw: the paper's places, gently and harshly, and Taper's presets."""
    known = [*((DEPTHS, (ratio,) * 3) for ratio in (0.9, 0.7, 0.4)), *PRESETS.values()]
    searched = choices(method, settings)
    own = {name: getattr(method, name) for name in searched if getattr(method, name) in searched[name]}
    return [parameters_of(depths, keep, settings) | own for depths, keep in known if len(depths) <= settings.stages]


def parameters_of(depths: Sequence[float], keep: Sequence[float], settings: TuneSettings) -> dict[str, Any]:
    """The numbers to draw that lead to these places, as near as the space has them."""
    drawn: dict[str, Any] = {"stages": len(depths)}
    before = 0.0
    for stage in range(settings.stages):
        there = stage < len(depths)
        drawn[f"gap_{stage}"] = min(max(depths[stage] - before, GAP[0]), GAP[1]) if there else GAP[0]
        drawn[f"keep_{stage}"] = max(keep[stage], settings.least_keep) if there else 1.0
        before = depths[stage] if there else before
    return drawn
