"""README's picture: KL over the FLOPs ratio of each model, a few methods by name and the others in grey."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lazybench.report.curves import WHOLE, Pair, curve_names
from lazybench.report.figures.style import name_lines, points, styled
from lazybench.report.figures.tradeoff import CURVE, QUALITIES, curves
from lazybench.report.statistics import Estimate

FASTEST = 4.0  # FLOPs ratio at the right edge
WIDE = 1.2  # a curve whose settings lie closer together is no line over the speed
NAMED = ("taper", "lazyllm", "uniprefill", "fastkv", "spec_prefill", "first_last")


@styled()
def front(models: Sequence[tuple[str, pandas.DataFrame, Mapping[Pair, Estimate]]], ratio: float) -> Figure:
    """A panel a model; of one whose methods are mostly measured about one ratio, at it.

    Args:
        models: of each its title, its rows of ``measured_settings`` and each curve's KL at the ratio.
    """
    panels = [_shown(rows) for _, rows, _ in models]
    spans = [rows.groupby(CURVE)["flops_ratio"].agg(_wide) for rows in panels]
    several = [of_curves.mean() > 0.5 for of_curves in spans]
    figure = Figure(figsize=(4.3 * len(models), 3.4))
    places = figure.subplots(1, len(models), squeeze=False, width_ratios=[1.4 if one else 1 for one in several])[0]
    comparable = iter(_comparable([rows for rows, curved in zip(panels, several, strict=True) if curved]))
    for axes, rows, curved, (name, _, found) in zip(places, panels, several, models, strict=True):
        n = f"(n={rows['n'].max()})"
        if curved:
            _over_ratios(axes, f"{name} {n}", next(comparable))
        else:
            named = {curve: kl for curve, kl in found.items() if curve[0] in NAMED}
            _at_one(axes, f"{name}\nat a FLOPs ratio of {ratio:g} {n}", named)
    return figure


def _shown(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The curves of at least half of the samples, for points of different samples don't compare by eye."""
    inside = rows[rows["flops_ratio"].between(WHOLE, FASTEST)]
    return inside[2 * inside.groupby(CURVE)["n"].transform("max") >= inside["n"].max()]


def _comparable(panels: Sequence[pandas.DataFrame]) -> list[pandas.DataFrame]:
    """Without a method's curves that other panels lack, where it has one in all: what was calibrated for one model."""
    drawn = [rows[CURVE].apply(tuple, axis=1) for rows in panels]
    everywhere = set.intersection(*map(set, drawn)) if drawn else set()
    methods = {method for method, _ in everywhere}
    return [
        rows[[curve in everywhere or curve[0] not in methods for curve in of]]
        for rows, of in zip(panels, drawn, strict=True)
    ]


def _wide(ratios: pandas.Series) -> bool:
    return bool(ratios.max() > WIDE * ratios.min())


def _over_ratios(axes: Axes, heading: str, rows: pandas.DataFrame) -> None:
    lines_over = rows.groupby(CURVE)["flops_ratio"].transform(_wide).astype(bool)
    drawn = curves(axes, heading, rows[rows["method_name"].isin(NAMED) & lines_over], "flops_ratio", "kl")
    names = curve_names(drawn)
    lines: dict[str, tuple[float, Any]] = {names[curve]: line for curve, line in drawn.items()}
    for _, of in rows[~rows["method_name"].isin((*NAMED, "oracle")) & (rows["kl"] > 0)].groupby(CURVE, sort=False):
        line = of.sort_values("flops_ratio")
        (grey,) = axes.plot(line["flops_ratio"], line["kl"], ".-", color="0.65", linewidth=0.8, zorder=1)
        lines["grey: other methods"] = (-math.inf, grey)
    name_lines(axes, lines, 40, loc="best", fontsize=7, labelspacing=0.2)


def _at_one(axes: Axes, heading: str, found: Mapping[Pair, Estimate]) -> None:
    """Of each curve its KL at one ratio, the lowest on top."""
    for place, ((method, _), kl) in enumerate(found.items()):
        points(axes, method, pandas.DataFrame([{**kl.columns("kl"), "place": place}]), "kl", "place", 1)
    axes.set(xscale="log", xlabel=QUALITIES["kl"][0], title=heading, ylim=(len(found) - 0.5, -0.5))
    axes.set_yticks(range(len(found)), [textwrap.fill(name, 24) for name in curve_names(found).values()])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(3,)))
    axes.xaxis.set_minor_formatter("{x:g}")
