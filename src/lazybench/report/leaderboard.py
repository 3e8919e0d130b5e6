"""Which method, at which speed, at what loss, with what certainty: methods at matched ratios, and pairwise comparisons.

Methods are matched by the FLOPs ratio, and by memory. Every sample weighs the same in divergences and in comparisons;
in scores and shares every task does, as in summaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import pandas

from lazybench.methods import title
from lazybench.report import statistics
from lazybench.report.curves import Curve, curves_of, judged, numbers
from lazybench.report.results import Results
from lazybench.report.statistics import CONFIDENCE, Estimate
from lazybench.report.text import formatted, number, settings_label

FLOPS, MEMORY = "FLOPs ratio", "memory ratio"
MATCHED = {FLOPS: (1.5, 2.0, 3.0), MEMORY: (1.25, 1.5, 2.0, 4.0)}
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


@dataclass(frozen=True)
class Section:
    """One model's methods at one ratio."""

    model: str
    matched: str  # FLOPS or MEMORY
    ratio: float
    curves: tuple[Curve, ...]

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
                "method": name,
                "family": curve.family,
                "lowest": curve.speeds[0],
                "highest": curve.speeds[-1],
                **numbers(samples),
            }
            for name, curve, samples in zip(self.names, self.curves, self.samples, strict=True)
        ]
        return pandas.DataFrame(rows).sort_values("kl", na_position="last", kind="stable", ignore_index=True)

    def matrix(self) -> pandas.DataFrame:
        """Row against column, of every two methods on the samples that both have: the geometric mean of the ratio of
        their divergences, and who is closer to the plain model, as ``board.MATRIX_READING`` says.
        """
        there = [place for place, samples in enumerate(self.samples) if len(samples)]
        pairs = list(combinations(there, 2))
        both = [[self.samples[place]["fidelity_kl"] for place in pair] for pair in pairs]
        found = [statistics.compare_divergences(*one.align(other, join="inner")) for one, other in both]
        corrected = statistics.holm([one.p_sign if one.samples else 1.0 for one in found])
        cells: dict[tuple[int, int], str] = {}
        for (first, second), one, p_holm in zip(pairs, found, corrected, strict=True):
            ratio, marks = one.estimate, 1 + (p_holm < 1 - CONFIDENCE)
            inverse = Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
            for pair, kl in (((first, second), ratio), ((second, first), inverse)):
                result = "" if not kl.excludes(1) else "+" if kl.high < 1 else "-"
                cells[pair] = f"{number(kl.value, 2)} {result * marks}".strip()
        names = [self.names[place] for place in there]
        columns = {self.names[of]: [cells.get((place, of), "") for place in there] for of in there}
        return pandas.DataFrame({"method": names, **columns}) if pairs else pandas.DataFrame()


def sections(results: Results, ratios: Sequence[float] | None = None) -> list[Section]:
    """Each model's methods at each FLOPs ratio, and at each memory ratio that a method reaches.

    Args:
        ratios: FLOPs ratios; None: those of ``MATCHED``.
    """
    found = []
    for model, settings in judged(results.samples):
        if curves := tuple(curves_of(settings, "flops_ratio")):
            found += [Section(model, FLOPS, ratio, curves) for ratio in ratios or MATCHED[FLOPS]]
        if curves := tuple(curves_of(settings, "memory_ratio")):
            at_memory = [Section(model, MEMORY, ratio, curves) for ratio in MATCHED[MEMORY]]
            found += [section for section in at_memory if any(map(len, section.samples))]
    return found


def measured_settings(results: Results) -> pandas.DataFrame:
    """Every setting that was judged, by model and rising FLOPs ratio: what it saves, what it holds, what it loses."""
    rows = [
        {
            "model": model,
            "method_name": one.method,
            "params": one.params,
            "family": one.family,
            "method": title(one.method),
            "settings": settings_label(one.method, one.params),
            "flops_ratio": one.flops_ratio,
            "memory_ratio": one.memory_ratio,
            "memory": 1 / one.memory_ratio,
            **numbers(one.samples),
        }
        for model, settings in judged(results.samples)
        for one in settings
    ]
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
