"""A method's quality as a curve over its speed, and what it is at a speed between two of its settings.

A curve runs through the settings of one method that differ in how much they keep. Between two of them that are
neighbours in speed every quantity is linear in the logarithm of the speed, divergences and ratios of times by their
own logarithm. So nothing between two settings lies outside of what they measured, and beyond the outermost ones there
is nothing; but a setting stands for a speed within 4% of its own. Which parameters say how much is kept, each
method names itself (``Method.amount``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
import pandas

from lazybench.methods import family, title
from lazybench.report import statistics
from lazybench.report.statistics import KL_FLOOR, Estimate, by_task

Pair = tuple[str, str]  # a method and its family
LOGARITHMIC = ["fidelity_kl", "fidelity_first_kl", "fidelity_later_kl", "ttft_speedup", "decode_step_ratio"]
QUANTITIES = [*LOGARITHMIC, "fidelity_top1", "score", "baseline_score", "kv_ratio", "aux_ratio"]
NEAR = 1.04  # a setting stands for a speed that is no further from its own, by this factor
FLOOR = 0.05  # a plain model's score below which another's relative to it says nothing
WHOLE = 1.02  # ratio of FLOPs or memory below which a prompt counts as not pruned


def curve_names(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """Of each curve the method's name, with its family where several curves are of that method."""
    found = list(dict.fromkeys(pairs))
    methods = [method for method, _ in found]
    return {
        (method, common): f"{title(method)} ({common})" if common and methods.count(method) > 1 else title(method)
        for method, common in found
    }


@dataclass(frozen=True)
class Curve:
    """One method's settings by rising speed."""

    method: str
    family: str  # what its settings have in common, in words: "variant=continue depth=0.25"
    speeds: tuple[float, ...]
    settings: tuple[pandas.DataFrame, ...]  # for each its samples by task and id, with QUANTITIES as columns
    whole: tuple[bool, ...]  # which settings leave most prompts as they are: between them and others is nothing

    def at(self, speed: float) -> pandas.DataFrame:
        """QUANTITIES of each sample that was measured on both sides of this speed, or at a setting within 4% of it;
        empty elsewhere.
        """
        found = between(self.speeds, speed)
        if found is None or (found[2] and (self.whole[found[0]] or self.whole[found[1]])):
            far, near = min((abs(math.log(known / speed)), place) for place, known in enumerate(self.speeds))
            if far > math.log(NEAR):
                return self.settings[0][:0]
            found = near, near, 0.0
        first, second, share = found
        one, other = self.settings[first].align(self.settings[second], join="inner", axis=0)
        mixed = (1 - share) * one + share * other
        logs = [numpy.log(side[LOGARITHMIC].clip(lower=KL_FLOOR)) for side in (one, other)]
        mixed[LOGARITHMIC] = numpy.exp((1 - share) * logs[0] + share * logs[1])
        return mixed[mixed["fidelity_kl"].notna()]


def between(speeds: tuple[float, ...], speed: float) -> tuple[int, int, float] | None:
    """The neighbours that a speed lies between, and the second one's share by logarithms; None outside of them all.

    >>> between((1.0, 4.0), 2.0)
    (0, 1, 0.5)
    """
    for place, known in enumerate(speeds):
        if math.isclose(known, speed, rel_tol=1e-6):
            return place, place, 0.0
        if place and speeds[place - 1] < speed < known:
            low = math.log(speeds[place - 1])
            return place - 1, place, (math.log(speed) - low) / (math.log(known) - low)
    return None


@dataclass(frozen=True)
class Setting:
    """A method at one setting."""

    method: str
    params: str
    samples: pandas.DataFrame  # by task and id, with QUANTITIES and all else as columns

    @property
    def family(self) -> str:
        """What it has in common with the other settings of its curve, in words."""
        return family(self.method, json.loads(self.params))

    @cached_property
    def flops_ratio(self) -> float:
        """Of all samples' work together, as if each plain prefill were as long, each task with the same weight: half of
        the prompts at 2x and the others left whole are 1.33x.
        """
        work = 1.0 / self.samples["flops_ratio"]
        return 1.0 / statistics.mean(by_task(work, work.index.get_level_values("task")))

    @cached_property
    def memory_ratio(self) -> float:
        """The plain model's KV cache over KV cache and Aux Cache at the end, the median; NaN where it was not noted."""
        ratio = 1.0 / (self.samples["kv_ratio"] + self.samples["aux_ratio"].fillna(0))
        return statistics.median_ratio(by_task(ratio, ratio.index.get_level_values("task"))).value


def judged(samples: pandas.DataFrame) -> list[tuple[str, list[Setting]]]:
    """Each model, with what tells its rows from others, and its settings that were compared with the plain model's.

    Args:
        samples: from ``by_sample``.
    """
    steps = samples["baseline_output_tokens"]
    total = steps * samples["fidelity_kl"] - samples["fidelity_first_kl"]
    rows = samples.assign(fidelity_later_kl=(total.clip(lower=0) / (steps - 1)).where(steps > 1))
    rows = rows[rows["fidelity_kl"].notna() & (rows["method"] != "baseline")].set_index(["task", "sample_id"])
    found: dict[str, list[Setting]] = {}
    for (model, told, method, params), of in rows.groupby(["model", "setting", "method", "params"], sort=False):
        found.setdefault(f"{model} {told}".strip(), []).append(Setting(str(method), str(params), of))
    return list(found.items())


def curves_of(settings: Sequence[Setting], speed: str) -> list[Curve]:
    """The curves through one model's settings.

    Args:
        speed: ``flops_ratio`` or ``memory_ratio``; settings without one are left out.
    """
    families: dict[Pair, list[tuple[float, str, bool, pandas.DataFrame]]] = {}
    for one in settings:
        ratio = float(getattr(one, speed))
        if not math.isnan(ratio):
            whole = bool((one.samples["flops_ratio"].median() if speed == "flops_ratio" else ratio) < WHOLE)
            curve = families.setdefault((one.method, one.family), [])
            curve.append((ratio, one.params, whole, one.samples[QUANTITIES]))
    found = []
    for (method, common), of in families.items():
        speeds, _, spared, frames = zip(*sorted(of, key=lambda setting: setting[:2]), strict=True)
        found.append(Curve(method, common, speeds, frames, spared))
    return found


def numbers(samples: pandas.DataFrame) -> dict[str, object]:
    """What a table says of a setting's samples, or of a curve's at one speed."""
    scored = samples[samples["score"].notna() & samples["baseline_score"].notna()]
    relative = Estimate(math.nan)
    if len(scored) and scores(scored["baseline_score"]).value >= FLOOR:
        relative = statistics.relative_score(_tasks(scored["score"]), _tasks(scored["baseline_score"]))
    return {
        "n": len(samples),
        **divergence(samples["fidelity_kl"]).columns("kl"),
        "kl_first": divergence(samples["fidelity_first_kl"]).value,
        "kl_later": divergence(samples["fidelity_later_kl"]).value,
        **scores(samples["fidelity_top1"]).columns("same_token"),
        **relative.columns("relative_score"),
        **statistics.median_ratio(_tasks(samples["ttft_speedup"])).columns("ttft_speedup"),
        **statistics.median_ratio(_tasks(samples["decode_step_ratio"])).columns("decode_step_ratio"),
        **{name: samples[name].mean() for name in ("kv_ratio", "aux_ratio")},
    }


def divergence(values: pandas.Series) -> Estimate:
    """Geometric mean over samples, in nats; every sample weighs the same."""
    values = values.dropna()
    return statistics.compare_divergences(values, numpy.ones(len(values))).estimate


def scores(values: pandas.Series) -> Estimate:
    """The mean over tasks of scores or shares, 0..1."""
    return statistics.mean_score(_tasks(values.dropna()))


def _tasks(values: pandas.Series) -> list[statistics.Array]:
    """As of one task where some task has one sample, which knows no spread."""
    tasks = by_task(values, values.index.get_level_values("task"))
    return tasks if all(len(task) > 1 for task in tasks) else by_task(values)
