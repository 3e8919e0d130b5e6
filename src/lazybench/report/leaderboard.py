"""Which method, at which speed, at what loss, with what certainty: methods at matched speeds, and each pair of them.

Every sample weighs the same in divergences and in comparisons; in scores and shares every task does, as in summaries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import pandas

from lazybench.report import statistics
from lazybench.report.curves import Curve, by_task, curves_of, divergence, flops_ratio, same_token
from lazybench.report.names import titled
from lazybench.report.results import Results
from lazybench.report.statistics import CONFIDENCE, INTERVAL, Comparison, Estimate, Measured
from lazybench.report.tables import number, with_bounds

SPEEDS = (1.5, 2.0, 3.0)
FLOPS, TTFT = "FLOPs ratio", "TTFT speedup"
NOT_JUDGED = "no record has a KL divergence from the plain model; run with fidelity=true, or experiment=quality"
RATIOS_OF_TIMES = {
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "decode_step": ("decode_step_s", "baseline_decode_step_s"),
}
EQUAL_WORK = 0.03  # FLOPs ratios that differ by less are of prompts of one length
Times = dict[tuple[str, str], float]  # method and its settings to a ratio: the median of paired ones, or of FLOPs


@dataclass(frozen=True)
class Section:
    """One model's methods at one speed."""

    model: str
    matched: str  # FLOPS or TTFT
    speed: float
    curves: tuple[Curve, ...]
    times: dict[str, Times]  # by name: see RATIOS_OF_TIMES
    timed: str = ""  # what tells the runs that measured the times from others: "length=7500"

    @property
    def title(self) -> str:
        """``smollm2 at a FLOPs ratio of 2x``"""
        timed = f", timed with {self.timed}" if self.timed else ""
        return f"{self.model} at a {self.matched} of {self.speed:g}x{timed}"

    @cached_property
    def names(self) -> list[str]:
        """Of each curve: the method's, with what tells it from another curve of the same method."""
        methods = [curve.method for curve in self.curves]
        return [titled(c.method, c.family if methods.count(c.method) > 1 else "") for c in self.curves]

    @cached_property
    def samples(self) -> list[pandas.DataFrame]:
        """Of each curve: its quantities at this speed, one row a sample."""
        return [curve.at(self.speed) for curve in self.curves]

    def table(self) -> pandas.DataFrame:
        """Numbers, one row a method, the closest to the plain model first, those without any last."""
        rows = [
            {**self._about(name, curve), **_row(samples)}
            for name, curve, samples in zip(self.names, self.curves, self.samples, strict=True)
        ]
        return pandas.DataFrame(rows).sort_values("kl", na_position="last", kind="stable", ignore_index=True)

    def _place(self) -> dict[str, object]:
        timed = {"timed": self.timed} if self.timed else {}
        return {"model": self.model, "matched": self.matched, "speed": self.speed, **timed}

    def _about(self, name: str, curve: Curve) -> dict[str, object]:
        return {
            **self._place(),
            "method": name,
            "family": curve.family,
            "settings": "; ".join(curve.labels),
            "slowest": curve.speeds[0],
            "fastest": curve.speeds[-1],
            **{name: curve.timed_at(self.speed, known) for name, known in self.times.items()},
        }

    def comparisons(self) -> pandas.DataFrame:
        """Every two methods on the samples that both have: one row for each order of the two.

        ``kl_ratio``: the geometric mean of the first's divergence over the second's; ``result``: "closer" or "further"
        where the 95% interval leaves out 1, "undecided" else; ``p_holm``: of the sign test, corrected for the pairs.
        """
        measured = [place for place, samples in enumerate(self.samples) if len(samples)]
        pairs = list(combinations(measured, 2))
        found = [self._compare(*pair) for pair in pairs]
        corrected = statistics.holm([one.p_sign if one.samples else 1.0 for one in found])
        rows = []
        for (first, second), one, p_holm in zip(pairs, found, corrected, strict=True):
            for names, turned in (((first, second), one.estimate), ((second, first), _inverse(one.estimate))):
                rows.append(
                    {
                        **self._place(),
                        "method": self.names[names[0]],
                        "against": self.names[names[1]],
                        "kl_ratio": turned.value,
                        "kl_ratio_low": turned.low,
                        "kl_ratio_high": turned.high,
                        "bounds": turned.kind,
                        "n": one.samples,
                        "result": _result(turned),
                        "p_sign": one.p_sign,
                        "p_holm": p_holm,
                        "samples_to_decide": one.samples_to_decide,
                    }
                )
        return pandas.DataFrame(rows)

    def compare_scores(self, first: int, second: int) -> Comparison:
        """The first's score less the second's, 0..1, on the samples where both have one; places among the curves."""
        one, other = self.samples[first]["score"].align(self.samples[second]["score"], join="inner")
        return statistics.compare_scores(one, other)

    def _compare(self, first: int, second: int) -> Comparison:
        one, other = self.samples[first]["fidelity_kl"].align(self.samples[second]["fidelity_kl"], join="inner")
        return statistics.compare_divergences(one, other)


def sections(results: Results, speeds: Sequence[float] = SPEEDS) -> list[Section]:
    """Each model's methods at each speed: matched by FLOPs, and by measured TTFT where runs timed the same settings.

    Times of other lengths, machines or precisions are no times of one speed: each has sections of its own. A setting's
    times stand beside its quality only where both runs had it save as much: on longer prompts it saves more.
    """
    judged = _holding(results, "fidelity_kl")
    times = _times(replace(_holding(results, "ttft_s"), joined=()))  # clocks of two machines are never put together
    plain = {group.label: run.model for run, group in zip(judged.runs, judged.groups, strict=True)}
    found = []
    for model, samples in judged_samples(results):
        saved = _flops_ratios(samples)
        known = {
            timed: fitting
            for timed, (ratios, saved_there) in times.get(plain[model], {}).items()
            if (fitting := _of_equal_work(ratios, saved_there, saved))
        }
        alone = next(iter(known.values())) if len(known) == 1 else {}
        matchings = [(FLOPS, "", alone, curves_of(samples))]
        for timed, ratios in known.items():
            matchings.append((TTFT, timed, ratios, curves_of(samples, ratios["ttft_speedup"])))
        found += [
            Section(model, matched, speed, tuple(curves), ratios, timed)
            for matched, timed, ratios, curves in matchings
            if curves
            for speed in speeds
        ]
    return found


def judged_samples(results: Results) -> list[tuple[str, pandas.DataFrame]]:
    """Each model with its rows of ``paired_samples``, of the runs that compared it with the plain model."""
    judged = _holding(results, "fidelity_kl")
    return [(str(model), rows) for model, rows in judged.samples.groupby("model", sort=False)] if judged.runs else []


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """A section's table as rounded text, units in the names; columns that nothing fills are left out."""
    columns: dict[str, list[str]] = {
        "method": list(table["method"]),
        "fixed": [
            "" if method.endswith(family) else family
            for method, family in zip(table["method"], table["family"], strict=True)
        ],
        "KL nats": bounded(table, "kl", 1, 3),
        "first": [number(value, 3) for value in table["kl_first"]],
        "later": [number(value, 3) for value in table["kl_later"]],
        "same token %": bounded(table, "same_token", 100, 0),
        "relative score %": bounded(table, "relative_score", 100, 0),
        **{
            title: [number(value, 2) for value in table[name]]
            for title, name in (("TTFT speedup", "ttft_speedup"), ("decoding step x", "decode_step"))
            if name in table
        },
        "KV %": [number(100 * value, 0) for value in table["kv_ratio"]],
        "Aux %": [number(100 * value, 0) for value in table["aux_ratio"]],
        "n": [str(n) if n else "" for n in table["n"]],
        "measured from to": [f"{number(a, 2)} {number(b, 2)}" for a, b in table[["slowest", "fastest"]].to_numpy()],
    }
    return pandas.DataFrame({name: cells for name, cells in columns.items() if any(cells)})


def matrix(comparisons: pandas.DataFrame) -> pandas.DataFrame:
    """Row against column: the ratio of their divergences, and who is closer to the plain model."""
    names = list(dict.fromkeys(comparisons["method"]))
    cells = {(row.method, row.against): _cell(row) for row in comparisons.itertuples()}
    lines = [{"method": one, **{other: cells.get((one, other), "") for other in names}} for one in names]
    return pandas.DataFrame(lines)


def _cell(row: object) -> str:
    sure = row.p_holm < 1 - CONFIDENCE  # type: ignore[attr-defined]
    mark = {"closer": "+", "further": "-", "undecided": ""}[row.result] * (1 + sure)  # type: ignore[attr-defined]
    return f"{number(row.kl_ratio, 2)} {mark}".strip()  # type: ignore[attr-defined]


def _row(samples: pandas.DataFrame) -> dict[str, object]:
    kl = divergence(samples)
    scored = samples[samples["score"].notna() & samples["baseline_score"].notna()]
    relative = Estimate(math.nan)
    if len(scored):
        relative = statistics.relative_score(by_task(scored["score"]), by_task(scored["baseline_score"]))
    return {
        "n": len(samples),
        **named("kl", kl),
        "kl_first": divergence(samples, "fidelity_first_kl").value,
        "kl_later": divergence(samples, "fidelity_later_kl").value,
        **named("same_token", same_token(samples)),
        **named("relative_score", relative),
        "kv_ratio": samples["kv_ratio"].mean(),
        "aux_ratio": samples["aux_ratio"].mean(),
        "bounds": kl.kind,
    }


def _of_equal_work(ratios: dict[str, Times], saved_there: Times, saved: Times) -> dict[str, Times]:
    """The ratios of times of the settings whose FLOPs ratio is the same in both; empty where there are none."""
    there = {pair: saved_there.get(pair, math.nan) for pair in saved}
    equal = {pair for pair, ratio in saved.items() if math.isclose(there[pair], ratio, rel_tol=EQUAL_WORK)}
    found = {name: {pair: value for pair, value in known.items() if pair in equal} for name, known in ratios.items()}
    return found if equal else {}


def _flops_ratios(samples: pandas.DataFrame) -> Times:
    settings = samples[samples["method"] != "baseline"].groupby(["method", "params"])
    return {(str(method), str(params)): flops_ratio(rows) for (method, params), rows in settings}


def _times(results: Results) -> dict[str, dict[str, tuple[dict[str, Times], Times]]]:
    """For each model by its plain name, and for each group of runs by what tells it from the model's others: the
    medians of the paired ratios of times, where methods were timed; and the FLOPs ratios there.
    """
    if not results.runs:
        return {}
    plain = {group.label: run.model for run, group in zip(results.runs, results.groups, strict=True)}
    samples = results.samples[results.samples["method"] != "baseline"]
    found: dict[str, dict[str, tuple[dict[str, Times], Times]]] = {}
    for label, of_group in samples.groupby("model"):
        times: dict[str, Times] = {name: {} for name in RATIOS_OF_TIMES}
        for (method, params), rows in of_group.groupby(["method", "params"]):
            for name, (above, below) in RATIOS_OF_TIMES.items():
                ratios = statistics.median_ratio(Measured.of(rows[above] / rows[below], None, rows["task"]))
                times[name][str(method), str(params)] = ratios.value
        model = plain[str(label)]
        name = str(label).removeprefix(model).strip()
        found.setdefault(model, {})[name] = times, _flops_ratios(of_group)
    return found


def _holding(results: Results, name: str) -> Results:
    """Of the runs those with a record that holds this."""
    runs = (run for run in results.runs if any(getattr(record, name) is not None for record in run.records))
    return replace(results, runs=tuple(runs), attention=())


def _inverse(ratio: Estimate) -> Estimate:
    return Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.kind)


def _result(ratio: Estimate) -> str:
    if ratio.kind != INTERVAL or ratio.low <= 1 <= ratio.high:
        return "undecided"
    return "closer" if ratio.high < 1 else "further"


def named(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def bounded(table: pandas.DataFrame, name: str, factor: float, digits: int) -> list[str]:
    """A column with its bounds as text: brackets where they are an interval."""
    columns = table[[name, f"{name}_low", f"{name}_high", "bounds"]]
    return [with_bounds(Estimate(*row), digits, factor) for row in columns.itertuples(index=False)]
