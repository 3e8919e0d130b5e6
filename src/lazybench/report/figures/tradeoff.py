"""Quality over speed: a run's own figure, the leaderboard's front, and figure 5 of the paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.curves import Pair
from lazybench.report.figures.style import BLACK, name_lines, points, styled
from lazybench.report.results import Results
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.summary import category_rows
from lazybench.report.text import category_title

CAPTION = "A point is a setting, a line joins a method's. KL divergence: geometric mean over samples."
CURVE = ["method_name", "family"]
TITLE_WIDTH = 46  # characters that a panel is wide
SPEEDS = {"ttft_speedup": "TTFT speedup (x)", "flops_ratio": "FLOPs ratio (x)"}
QUALITIES = {  # column to axis label and factor
    "kl": ("KL from the plain model (nats)", 1),
    "relative_score": ("score relative to baseline (%)", 100),
    "fidelity_top1": ("same token as baseline (%)", 100),
}


def quality_of(summary: pandas.DataFrame) -> str | None:
    """The score, or where none was measured the share of same tokens; None where neither was."""
    columns = ("relative_score", "fidelity_top1")
    return next((name for name in columns if name in summary and summary[name].notna().any()), None)


@styled()
def draw(panels: Sequence[tuple[str, pandas.DataFrame]], across: str, quality: str) -> Figure:
    """A panel for each of these that has numbers; see ``curves``.

    Args:
        panels: of each its title and its rows.
    """
    drawn = [(heading, shown) for heading, rows in panels if len(shown := rows.dropna(subset=[across, quality]))]
    columns, rows = min(2, len(drawn)) or 1, math.ceil(len(drawn) / 2) or 1
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows))
    places = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, (heading, shown) in zip(places, drawn, strict=False):
        names: dict[str, tuple[float, Any]] = {}
        for (method, _), line in curves(axes, heading, shown, across, quality).items():
            names.setdefault(title(method), line)  # one for all curves of a method
        name_lines(axes, names)
        axes.tick_params(which="both", labelbottom=True, labelleft=True)
    low, high = places[0].get_ylim()
    if quality == "kl" and high < 2 * low:  # a factor of two or more: small differences look small
        places[0].set_ylim((low * high / 2) ** 0.5, (low * high * 2) ** 0.5)
    for axes in places[len(drawn) :]:
        axes.remove()
    return figure


def curves(
    axes: Axes, heading: str, rows: pandas.DataFrame, across: str, quality: str
) -> dict[Pair, tuple[float, Any]]:
    """One panel: a point a setting, a line along each curve of a method. Gives each curve's last height and its line.

    Args:
        rows: a method's name, its curve's family, and numbers with their ``_low`` and ``_high``.
        across: a column of ``SPEEDS``.
        quality: a column of ``QUALITIES``.
    """
    label, factor = QUALITIES[quality]
    axes.set(xlabel=SPEEDS[across], ylabel=label, yscale="log" if quality == "kl" else "linear")
    axes.set_title(textwrap.fill(heading, TITLE_WIDTH))
    rows = rows[numpy.isfinite(rows[quality]) & (quality != "kl" or rows[quality] > 0)]  # 0 has no place on this axis
    lines: dict[Pair, tuple[float, Any]] = {}
    for (method, family), of in rows.groupby(CURVE, sort=False):
        line = of.sort_values(across)
        second = {"linestyle": "--", "markerfacecolor": "white"} if method in {name for name, _ in lines} else {}
        drawn = points(axes, str(method), line, across, quality, factor, zorder=3, **second)
        lines[str(method), str(family)] = factor * line[quality].iloc[-1], drawn
    highs = rows.get(f"{quality}_high", rows[quality])
    if numpy.isposinf(highs).any():  # an interval without an upper bound runs off the panel
        axes.set_ylim(top=1.05 * factor * max(rows[quality].max(), highs[numpy.isfinite(highs)].max()))
    if quality == "kl":
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    return lines


def settings_figure(settings: pandas.DataFrame) -> Figure:
    """A panel a model, every setting: over the TTFT speedup where all were timed, else over the FLOPs ratio.

    Args:
        settings: from ``measured_settings``.
    """
    panels = []
    for model, rows in settings.groupby("model", sort=False):
        bars = "; bars: 95% interval" if rows["kl_low"].notna().any() else ""
        n = " to ".join(str(n) for n in dict.fromkeys((rows["n"].min(), rows["n"].max())))
        few = "demonstration, " if rows["n"].max() < LEAST_SAMPLES else ""
        panels.append((f"{model} ({few}n={n}{bars})", rows))
    return draw(panels, next(name for name in SPEEDS if settings[name].notna().all() or name == "flops_ratio"), "kl")


def figure5(results: Results) -> Figure | None:
    """A panel per model and category; stars are the points that the paper states for Llama 2 7B."""
    summary = results.summary
    if (quality := quality_of(summary)) is None:
        return None
    rows = category_rows(summary).assign(method_name=lambda rows: rows["method"], family="")
    rows = rows[rows["ttft_speedup"].notna() & numpy.isfinite(rows[quality])]  # infinite over a baseline of 0
    groups = list(rows.groupby(["model", "category"], sort=False))
    if not groups:
        return None
    figure = draw(
        [(f"{category_title(str(category))} (n={of['n'].max()}), {model}", of) for (model, category), of in groups],
        "ttft_speedup",
        quality,
    )
    for axes, ((_, category), _) in zip(figure.axes, groups, strict=False):
        for speedup, share in paper.ANCHORS.get(str(category), ()) if quality == "relative_score" else ():
            axes.plot(speedup, 100 * share, "*", color=BLACK, markersize=9)
            axes.annotate("paper", (speedup, 100 * share), (4, 4), textcoords="offset points", fontsize=7)
    return figure
