"""Which method, at which speed, at what loss, with what certainty: methods at matched ratios, and pairwise comparisons.

Methods are matched by the FLOPs ratio, and by memory. Every sample weighs the same in divergences and in comparisons;
in scores and shares every task does, as in summaries.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import pandas

from lazybench.methods import family, title
from lazybench.report import statistics
from lazybench.report.curves import (
    Curve,
    Ratios,
    by_task,
    curves_of,
    divergence,
    flops_ratios,
    memory_ratios,
    quantities,
    same_token,
)
from lazybench.report.frame import settings_label
from lazybench.report.results import Results
from lazybench.report.statistics import CONFIDENCE, Comparison, Estimate, Measured
from lazybench.report.tables import formatted, number

FLOPS, MEMORY = "FLOPs ratio", "memory ratio"
MATCHED = {FLOPS: (1.5, 2.0, 3.0), MEMORY: (1.25, 1.5, 2.0, 4.0)}
TIMES = {"ttft_speedup": ("baseline_ttft_s", "ttft_s"), "decode_step": ("decode_step_s", "baseline_decode_step_s")}
COLUMNS = {  # of a table for people: heading, digits and factor
    "flops_ratio": ("FLOPs ratio", 2, 1.0),
    "kl": ("KL nats", 3, 1.0),
    "kl_first": ("first", 3, 1.0),
    "kl_later": ("later", 3, 1.0),
    "same_token": ("same token %", 0, 100.0),
    "relative_score": ("relative score %", 0, 100.0),
    "ttft_speedup": ("TTFT speedup", 2, 1.0),
    "decode_step": ("decoding step x", 2, 1.0),
    "memory": ("memory %", 0, 100.0),
    "kv_ratio": ("KV %", 0, 100.0),
    "aux_ratio": ("Aux %", 0, 100.0),
    "lowest": ("measured from", 2, 1.0),
    "highest": ("to", 2, 1.0),
}
Times = dict[tuple[str, str, str], list[tuple[float, dict[str, float]]]]
EQUAL_WORK = 0.03  # FLOPs ratios that differ by less are of prompts of one length


@dataclass(frozen=True)
class Section:
    """One model's methods at one ratio."""

    model: str
    matched: str  # FLOPS or MEMORY
    ratio: float
    curves: tuple[Curve, ...]
    times: dict[str, Ratios] = field(default_factory=dict)  # by name: see TIMES

    @property
    def title(self) -> str:
        """``smollm2 at a FLOPs ratio of 2x``"""
        return f"{self.model} at a {self.matched} of {self.ratio:g}x"

    @cached_property
    def names(self) -> list[str]:
        """Of each curve: the method's, with what tells it from another curve of the same method."""
        methods = [curve.method for curve in self.curves]
        return [
            f"{title(c.method)}, {c.family}" if methods.count(c.method) > 1 and c.family else title(c.method)
            for c in self.curves
        ]

    @cached_property
    def samples(self) -> list[pandas.DataFrame]:
        """Of each curve: its quantities at this ratio, one row a sample."""
        return [curve.at(self.ratio) for curve in self.curves]

    def table(self) -> pandas.DataFrame:
        """Numbers, one row a method, the closest to the plain model first, those without any last."""
        rows = [
            {
                "model": self.model,
                "matched": self.matched,
                "ratio": self.ratio,
                "method": name,
                "family": curve.family,
                "settings": "; ".join(curve.labels),
                "lowest": curve.speeds[0],
                "highest": curve.speeds[-1],
                **{kind: curve.timed_at(self.ratio, known) for kind, known in self.times.items()},
                **_numbers(samples),
            }
            for name, curve, samples in zip(self.names, self.curves, self.samples, strict=True)
        ]
        return pandas.DataFrame(rows).sort_values("kl", na_position="last", kind="stable", ignore_index=True)

    def comparisons(self) -> pandas.DataFrame:
        """Every two methods on the samples that both have: one row for each order of the two.

        ``kl_ratio``: the geometric mean of the first's divergence over the second's; ``result``: "closer" or "further"
        where the 95% interval leaves out 1, "undecided" else; ``p_holm``: of the sign test, corrected for the pairs.
        """
        pairs = list(combinations([place for place, samples in enumerate(self.samples) if len(samples)], 2))
        found = [self._compare(*pair) for pair in pairs]
        corrected = statistics.holm([one.p_sign if one.samples else 1.0 for one in found])
        rows = []
        for (first, second), one, p_holm in zip(pairs, found, corrected, strict=True):
            for names, turned in (((first, second), one.estimate), ((second, first), _inverse(one.estimate))):
                rows.append(
                    {
                        "model": self.model,
                        "matched": self.matched,
                        "ratio": self.ratio,
                        "method": self.names[names[0]],
                        "against": self.names[names[1]],
                        **turned.columns("kl_ratio"),
                        "n": one.samples,
                        "result": _result(turned),
                        "p_sign": one.p_sign,
                        "p_holm": p_holm,
                        "samples_to_decide": one.samples_to_decide,
                    }
                )
        return pandas.DataFrame(rows)

    def _compare(self, first: int, second: int) -> Comparison:
        one, other = self.samples[first]["fidelity_kl"].align(self.samples[second]["fidelity_kl"], join="inner")
        return statistics.compare_divergences(one, other)


def sections(results: Results, ratios: Sequence[float] | None = None) -> list[Section]:
    """Each model's methods at each FLOPs ratio, and at each memory ratio that a method reaches.

    Args:
        ratios: FLOPs ratios; None: those of ``MATCHED``.
    """
    found = []
    times = _times(results.samples)
    for model, samples in judged_samples(results):
        known = _of_equal_work(times, samples["model"].iloc[0], samples)
        if curves := curves_of(samples):
            at = ratios or MATCHED[FLOPS]
            found += [Section(model, FLOPS, ratio, tuple(curves), known) for ratio in at]
        if curves := curves_of(samples, memory_ratios(samples)):
            at_memory = [Section(model, MEMORY, ratio, tuple(curves)) for ratio in MATCHED[MEMORY]]
            found += [section for section in at_memory if any(map(len, section.samples))]
    return found


def judged_samples(results: Results) -> list[tuple[str, pandas.DataFrame]]:
    """Each model with what tells its rows from others, and its rows of ``by_sample`` that were compared with the plain
    model's.
    """
    judged = results.samples[results.samples["fidelity_kl"].notna()]
    groups = judged.groupby(["model", "setting"], sort=False)
    return [(f"{model} {setting}".strip(), rows) for (model, setting), rows in groups]


def measured_settings(results: Results) -> pandas.DataFrame:
    """Every setting that was judged, by model and rising FLOPs ratio: what it saves, what it holds, what it loses."""
    rows = []
    for model, samples in judged_samples(results):
        flops, memory = flops_ratios(samples), memory_ratios(samples)
        for (method, params), of_setting in quantities(samples):
            about = {"model": model, "method_name": method, "method": title(method)}
            about |= {"settings": settings_label(method, params), "family": family(method, json.loads(params))}
            ratio = memory.get((method, params), math.nan)
            saved = {"flops_ratio": flops[method, params], "memory_ratio": ratio, "memory": 1 / ratio}
            rows.append({**about, **saved, **_numbers(of_setting)})
    table = pandas.DataFrame(rows)
    return table.sort_values(["model", "flops_ratio"], kind="stable", ignore_index=True) if rows else table


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """A section's table, or ``measured_settings``, as rounded text; columns that nothing fills are left out."""
    names = list(table["method"])
    columns = {"method": names}
    if "flops_ratio" in table:
        columns["settings"] = list(table["settings"])
    else:  # what the name does not say already
        columns["fixed"] = ["" if n.endswith(f) else f for n, f in zip(names, table["family"], strict=True)]
    for name, (heading, digits, factor) in COLUMNS.items():
        columns[heading] = formatted(table, name, digits, factor) if name in table else []
    columns["n"] = [str(n) if n else "" for n in table["n"]]
    return pandas.DataFrame({name: cells for name, cells in columns.items() if any(cells)})


def matrix(comparisons: pandas.DataFrame) -> pandas.DataFrame:
    """Row against column: the ratio of their divergences, and who is closer to the plain model."""
    names = list(dict.fromkeys(comparisons["method"]))
    marks = {"closer": "+", "further": "-", "undecided": ""}
    cells = {
        (row["method"], row["against"]): f"{number(row['kl_ratio'], 2)} "
        + marks[row["result"]] * (1 + (row["p_holm"] < 1 - CONFIDENCE))
        for row in comparisons.to_dict("records")
    }
    lines = [{"method": one, **{other: cells.get((one, other), "").strip() for other in names}} for one in names]
    return pandas.DataFrame(lines)


def _numbers(samples: pandas.DataFrame) -> dict[str, object]:
    kl = divergence(samples)
    scored = samples[samples["score"].notna() & samples["baseline_score"].notna()]
    relative = Estimate(math.nan)
    if len(scored):
        relative = statistics.relative_score(by_task(scored["score"]), by_task(scored["baseline_score"]))
    return {
        "n": len(samples),
        **kl.columns("kl"),
        "kl_first": divergence(samples, "fidelity_first_kl").value,
        "kl_later": divergence(samples, "fidelity_later_kl").value,
        **same_token(samples).columns("same_token"),
        **relative.columns("relative_score"),
        "kv_ratio": samples["kv_ratio"].mean(),
        "aux_ratio": samples["aux_ratio"].mean(),
    }


def _times(samples: pandas.DataFrame) -> Times:
    """For each model by its plain name and each setting of a method that was timed: its FLOPs ratio there and the
    medians of its ratios of times.
    """
    found: Times = defaultdict(list)
    timed = samples[samples["baseline_ttft_s"].notna()]
    for (model, _), rows in timed.groupby(["model", "setting"], sort=False):
        saved = flops_ratios(rows)
        for pair, of_setting in quantities(rows):
            tasks = of_setting.index.get_level_values("task")
            ratios = {
                name: statistics.median_ratio(Measured.of(of_setting[above] / of_setting[below], None, tasks)).value
                for name, (above, below) in TIMES.items()
            }
            found[str(model), *pair].append((saved[pair], ratios))
    return found


def _of_equal_work(times: Times, model: str, samples: pandas.DataFrame) -> dict[str, Ratios]:
    """The ratios of times of each setting where it saved as much as in these samples: prompts of one length."""
    found: dict[str, Ratios] = {}
    for pair, saved in flops_ratios(samples).items():
        known = times.get((model, *pair), [])
        equal = [(abs(there - saved), place) for place, (there, _) in enumerate(known) if _equal(there, saved)]
        for name, ratio in known[min(equal)[1]][1].items() if equal else ():
            found.setdefault(name, {})[pair] = ratio
    return found


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=EQUAL_WORK)


def _inverse(ratio: Estimate) -> Estimate:
    return Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


def _result(ratio: Estimate) -> str:
    return "undecided" if not ratio.excludes(1) else "closer" if ratio.high < 1 else "further"
