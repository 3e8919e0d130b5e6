"""A method's quality as a curve over its speed, and what it is at a speed between two of its settings.

A curve runs through the settings of one method that differ in how much they keep. Between two of them that are
neighbours in speed every quantity is linear in the logarithm of the speed, divergences and ratios of times by their
own logarithm. So nothing between two settings lies outside of what they measured, and beyond the outermost ones there
is nothing; but a setting stands for a speed within 4% of its own, there and where it has more samples than its
neighbours share. Which parameters say how much is kept, each method names itself (``Method.amount``).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
import pandas

from lazybench.methods import family, title
from lazybench.report import statistics
from lazybench.report.statistics import KL_FLOOR, Estimate, by_task

Pair = tuple[str, str]  # a method and its family
FLOPS, MEMORY = "flops_ratio", "memory_ratio"  # what settings are matched by
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
class Setting:
    """A method at one setting."""

    method: str
    params: str
    samples: pandas.DataFrame  # by task and id, with QUANTITIES and all else as columns

    @cached_property
    def family(self) -> str:
        """What it has in common with the other settings of its curve, in words: ``variant=continue depth=0.25``."""
        return family(self.method, json.loads(self.params))

    @cached_property
    def flops_ratio(self) -> float:
        """Of all samples' work together, as if each plain prefill were as long, each task with the same weight: half of
        the prompts at 2x and the others left whole are 1.33x.
        """
        return 1.0 / statistics.mean(_by_task(1.0 / self.samples["flops_ratio"]))

    @cached_property
    def memory_ratio(self) -> float:
        """The plain model's KV cache over KV cache and Aux Cache at the end, the median; NaN where it was not noted."""
        held = self.samples["kv_ratio"] + self.samples["aux_ratio"].fillna(0)
        return statistics.median_ratio(_by_task(1.0 / held)).value

    def leaves_whole(self, matched: str) -> bool:
        """Whether most prompts stay as they are: between such a setting and others is nothing."""
        return bool((self.samples["flops_ratio"].median() if matched == FLOPS else self.memory_ratio) < WHOLE)


@dataclass(frozen=True)
class Curve:
    """One method's settings by a rising ratio."""

    settings: tuple[Setting, ...]
    matched: str  # FLOPS or MEMORY

    @property
    def name(self) -> Pair:
        """The method and the family."""
        return self.settings[0].method, self.settings[0].family

    @property
    def ratios(self) -> list[float]:
        """Of each setting."""
        return [getattr(one, self.matched) for one in self.settings]

    def at(self, ratio: float) -> pandas.DataFrame:
        """QUANTITIES of each sample that was measured on both sides of this ratio, or at a setting within 4% of it,
        where no two settings bracket it or fewer samples have both; empty elsewhere.
        """
        between, beside = self._between(ratio), self._beside(ratio)
        return beside if len(beside) > len(between) else between

    def _beside(self, ratio: float) -> pandas.DataFrame:
        distances = numpy.abs(numpy.log(self.ratios) - math.log(ratio))
        samples = self.settings[int(distances.argmin())].samples[QUANTITIES].copy()
        samples[LOGARITHMIC] = samples[LOGARITHMIC].clip(lower=KL_FLOOR)
        return samples[samples["fidelity_kl"].notna() & (distances.min() <= math.log(NEAR))]

    def _between(self, ratio: float) -> pandas.DataFrame:
        logs, above = numpy.log(self.ratios), bisect_left(self.ratios, ratio)
        sides = self.settings[max(above - 1, 0) : above + 1]
        if len(sides) < 2 or ratio in self.ratios or any(side.leaves_whole(self.matched) for side in sides):
            return self.settings[0].samples[QUANTITIES][:0]
        share = (math.log(ratio) - logs[above - 1]) / (logs[above] - logs[above - 1])
        one, other = sides[0].samples[QUANTITIES].align(sides[1].samples[QUANTITIES], join="inner", axis=0)
        mixed = (1 - share) * one + share * other
        powers = [numpy.log(side[LOGARITHMIC].clip(lower=KL_FLOOR)) for side in (one, other)]
        mixed[LOGARITHMIC] = numpy.exp((1 - share) * powers[0] + share * powers[1])
        return mixed[mixed["fidelity_kl"].notna()]


def judged(samples: pandas.DataFrame) -> list[tuple[str, list[Setting]]]:
    """Each model and its settings that were compared with the plain model's.

    Args:
        samples: from ``by_sample``.
    """
    steps = samples["baseline_output_tokens"]
    total = steps * samples["fidelity_kl"] - samples["fidelity_first_kl"]
    rows = samples.assign(fidelity_later_kl=(total.clip(lower=0) / (steps - 1)).where(steps > 1))
    rows = rows[rows["fidelity_kl"].notna() & (rows["method"] != "baseline")].set_index(["task", "sample_id"])
    found: dict[str, list[Setting]] = {}
    for (model, method, params), of in rows.groupby(["model", "method", "params"], sort=False):
        found.setdefault(str(model), []).append(Setting(str(method), str(params), of))
    return list(found.items())


def curves_of(settings: Sequence[Setting], matched: str) -> list[Curve]:
    """The curves through one model's settings.

    Args:
        matched: FLOPS or MEMORY; settings without this ratio are left out.
    """
    families: dict[Pair, list[Setting]] = {}
    for one in settings:
        if not math.isnan(getattr(one, matched)):
            families.setdefault((one.method, one.family), []).append(one)
    return [
        Curve(tuple(sorted(of, key=lambda one: (getattr(one, matched), one.params))), matched)
        for of in families.values()
    ]


def numbers(samples: pandas.DataFrame) -> dict[str, object]:
    """What a table says of a setting's samples, or of a curve's at one ratio."""
    scored = samples[samples["score"].notna() & samples["baseline_score"].notna()]
    relative = Estimate(math.nan)
    if len(scored) and scores(scored["baseline_score"]).value >= FLOOR:
        relative = statistics.relative_score(_tasks(scored["score"]), _tasks(scored["baseline_score"]))
    return {
        "n": len(samples),
        **statistics.divergence(samples["fidelity_kl"]).columns("kl"),
        "kl_first": statistics.divergence(samples["fidelity_first_kl"]).value,
        "kl_later": statistics.divergence(samples["fidelity_later_kl"]).value,
        **scores(samples["fidelity_top1"]).columns("same_token"),
        **relative.columns("relative_score"),
        **{name: samples[name].mean() for name in ("kv_ratio", "aux_ratio")},
        **statistics.median_ratio(_tasks(samples["ttft_speedup"])).columns("ttft_speedup"),
        **statistics.median_ratio(_tasks(samples["decode_step_ratio"])).columns("decode_step_ratio"),
    }


def against(one: pandas.DataFrame, other: pandas.DataFrame) -> Estimate:
    """The first one's KL over the other's, on the samples that both have."""
    return statistics.compare_divergences(*one["fidelity_kl"].align(other["fidelity_kl"], join="inner"))


def scores(values: pandas.Series) -> Estimate:
    """The mean over tasks of scores or shares, 0..1."""
    return statistics.mean_score(_tasks(values.dropna()))


def _by_task(values: pandas.Series) -> list[statistics.Array]:
    return by_task(values, values.index.get_level_values("task"))


def _tasks(values: pandas.Series) -> list[statistics.Array]:
    """As of one task where some task has one sample, which knows no spread."""
    tasks = _by_task(values)
    return tasks if all(len(task) > 1 for task in tasks) else by_task(values)
