"""A method's quality as a curve over its speed, and what it is at a speed between two of its settings.

A curve runs through the settings of one method that differ in how much they keep. Between two of them that are
neighbours in speed every quantity is linear in the logarithm of the speed, divergences and ratios of times by their
own logarithm. So nothing between two settings lies outside of what they measured, and beyond the outermost ones there
is nothing. Which parameters say how much is kept, each method names itself (``Method.amount``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import pandas

from lazybench.methods import family
from lazybench.report import statistics
from lazybench.report.frame import settings_label
from lazybench.report.statistics import KL_FLOOR, Estimate, Measured

Ratios = dict[tuple[str, str], float]  # of a method and its params
LOGARITHMIC = ("fidelity_kl", "fidelity_first_kl", "fidelity_later_kl")
QUANTITIES = (*LOGARITHMIC, "fidelity_top1", "score", "baseline_score", "kv_ratio", "aux_ratio")
WHOLE = 1.02  # ratio of FLOPs or memory below which a prompt counts as not pruned


@dataclass(frozen=True)
class Curve:
    """One method's settings by rising speed."""

    method: str
    family: str  # what its settings have in common, in words: "variant=continue depth=0.25"
    speeds: tuple[float, ...]
    settings: tuple[pandas.DataFrame, ...]  # for each its samples by task and id, with QUANTITIES as columns
    params: tuple[str, ...]
    whole: tuple[bool, ...]  # which settings leave most prompts as they are: between them and others is nothing

    @property
    def labels(self) -> list[str]:
        """Each setting for people."""
        return [settings_label(self.method, params) for params in self.params]

    def at(self, speed: float) -> pandas.DataFrame:
        """QUANTITIES of each sample that was measured on both sides of this speed; empty outside of the curve."""
        found = self._neighbours(speed)
        if found is None:
            return self.settings[0][:0]
        first, second, share = found
        one, other = self.settings[first].align(self.settings[second], join="inner", axis=0)
        logs = list(LOGARITHMIC)
        mixed = (1 - share) * one + share * other
        mixed[logs] = numpy.exp((1 - share) * _log(one[logs]) + share * _log(other[logs]))
        return mixed[mixed["fidelity_kl"].notna()]

    def timed_at(self, speed: float, times: Mapping[tuple[str, str], float]) -> float:
        """A ratio of times that is known for each (method, params), at this speed; NaN where it is not."""
        found = self._neighbours(speed)
        if found is None:
            return math.nan
        first, second, share = found
        ends = [times.get((self.method, self.params[place]), math.nan) for place in (first, second)]
        return ends[0] ** (1 - share) * ends[1] ** share if share else ends[0]

    def _neighbours(self, speed: float) -> tuple[int, int, float] | None:
        """``between``, and None too where one of the two leaves most prompts whole."""
        found = between(self.speeds, speed)
        return None if found and found[2] and (self.whole[found[0]] or self.whole[found[1]]) else found


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


def curves_of(samples: pandas.DataFrame, speedups: Ratios | None = None) -> list[Curve]:
    """The curves of one model's samples, the baseline's left out.

    Args:
        samples: from ``by_sample``.
        speedups: the speed of each (method, params); those without one are left out. None: ``flops_ratios``.
    """
    speeds_of = flops_ratios(samples) if speedups is None else speedups
    families: dict[tuple[str, str], list[tuple[float, str, bool, pandas.DataFrame]]] = {}
    for (method, params), rows in quantities(samples):
        speed = speeds_of.get((method, params), math.nan)
        if not math.isnan(speed) and rows["fidelity_kl"].notna().any():
            spared = bool((rows["flops_ratio"].median() if speedups is None else speed) < WHOLE)
            setting = (speed, params, spared, rows[list(QUANTITIES)])
            families.setdefault((method, family(method, json.loads(params))), []).append(setting)
    found = []
    for (method, common), settings in families.items():
        settings.sort(key=lambda setting: setting[:2])
        speeds, chosen, whole, frames = zip(*settings, strict=True)
        found.append(Curve(method, common, speeds, frames, chosen, whole))
    return found


def quantities(samples: pandas.DataFrame) -> list[tuple[tuple[str, str], pandas.DataFrame]]:
    """Each method and its params but the baseline, with its samples by task and id: ``QUANTITIES`` and all else."""
    steps, kv = samples["baseline_output_tokens"], samples["baseline_kv_bytes_end"]
    total = steps * samples["fidelity_kl"] - samples["fidelity_first_kl"]
    rows = samples.assign(
        fidelity_later_kl=(total.clip(lower=0) / (steps - 1)).where(steps > 1),
        kv_ratio=samples["kv_bytes_end"] / kv,
        aux_ratio=samples["aux_bytes_end"] / kv,
    )
    rows = rows[rows["method"] != "baseline"].set_index(["task", "sample_id"])
    return [((str(method), str(params)), of) for (method, params), of in rows.groupby(["method", "params"], sort=False)]


def flops_ratios(samples: pandas.DataFrame) -> Ratios:
    """Of all samples' work together, as if each plain prefill were as long, each task with the same weight: half of the
    prompts at 2x and the others left whole are 1.33x.
    """
    return {
        pair: 1.0 / statistics.mean(Measured.of(1.0 / rows["flops_ratio"], None, rows.index.get_level_values("task")))
        for pair, rows in quantities(samples)
    }


def memory_ratios(samples: pandas.DataFrame) -> Ratios:
    """The plain model's KV cache over KV cache and Aux Cache at the end, the median; without those that don't say."""
    found = {}
    for pair, rows in quantities(samples):
        ratio = 1.0 / (rows["kv_ratio"] + rows["aux_ratio"].fillna(0))
        if ratio.notna().any():
            found[pair] = statistics.median_ratio(Measured.of(ratio, None, ratio.index.get_level_values("task"))).value
    return found


def divergence(samples: pandas.DataFrame, name: str = "fidelity_kl") -> Estimate:
    """Geometric mean over the samples of a curve, in nats; every sample weighs the same."""
    values = samples[name].dropna()
    return statistics.compare_divergences(values, numpy.ones(len(values))).estimate


def same_token(samples: pandas.DataFrame) -> Estimate:
    """Share of the plain model's tokens that are predicted too; every task weighs the same."""
    return statistics.mean_score(by_task(samples["fidelity_top1"]))


def by_task(values: pandas.Series) -> Measured:
    """A curve's samples with their tasks; as of one task where some task has one sample, which knows no spread."""
    tasks = values.index.get_level_values("task") if len(values) else None
    measured = Measured.of(values, None, tasks)
    return measured if all(len(task) > 1 for task in measured.by_task()) else Measured.of(values)


def _log(values: pandas.DataFrame) -> pandas.DataFrame:
    return values.clip(lower=KL_FLOOR).map(math.log, na_action="ignore")
