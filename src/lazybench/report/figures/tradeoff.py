"""Quality over speed: a run's own figure, the leaderboard's front, README's, and figure 5 of the paper."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.curves import WHOLE
from lazybench.report.figures.style import BLACK, look, name_lines, new_figure, points, styled
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.summary import category_rows
from lazybench.report.text import category_title

FASTEST = 4.0  # FLOPs ratio at the right edge of a front
IN_FRONT = ("taper", "lazyllm", "uniprefill", "fastkv", "spec_prefill", "first_last")  # in colour in README's
SPEEDS = {"ttft_speedup": "TTFT speedup (x)", "flops_ratio": "FLOPs ratio (x)"}
QUALITIES = {  # column to axis label and factor
    "kl": ("KL from the plain model (nats)", 1),
    "relative_score": ("score relative to baseline (%)", 100),
    "fidelity_top1": ("same token as baseline (%)", 100),
}


def measured(rows: pandas.DataFrame, names: Sequence[str] = tuple(QUALITIES)) -> str | None:
    """The first of these columns that holds a number."""
    return next((name for name in names if name in rows and rows[name].notna().any()), None)


def draw(
    panels: Sequence[tuple[str, pandas.DataFrame]], across: str, quality: str, named: Collection[str] = ()
) -> Figure:
    """A point a setting, a line along each method's.

    Args:
        panels: of each its title and its rows: a method's name, and numbers with their ``_low`` and ``_high``.
        across: a column of ``SPEEDS``.
        quality: a column of ``QUALITIES``.
        named: of these methods the best settings in colour, the others' in grey; none: all methods, all settings.
    """
    label, factor = QUALITIES[quality]
    columns = min(2, len(panels))
    with styled():
        figure = new_figure(5.2 * columns, 3.4 * math.ceil(len(panels) / columns))
        places = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False, sharex=True, sharey=True)
        for axes, (heading, rows) in zip(places.flat, panels, strict=False):
            axes.set(xlabel=SPEEDS[across], yscale="log" if quality == "kl" else "linear")
            axes.set_title(heading)
            axes.yaxis.set_major_formatter("{x:g}")
            if quality == "kl":
                axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
                axes.yaxis.set_minor_formatter("{x:g}")
            ends, shown = [], rows[rows[across].notna() & numpy.isfinite(rows[quality])]
            if quality == "kl":  # nothing lost has no place on this axis
                shown = shown[shown["kl"] > 0]
            for method, of in shown.groupby("method_name", sort=False):
                line = best(of, across) if named else of.sort_values(across)
                if method in named or not named:
                    points(axes, str(method), line, across, quality, factor, zorder=3)
                    last = line.iloc[-1]
                    ends.append((title(str(method)), look(str(method))[0], last[across], factor * last[quality]))
                elif method != "oracle":
                    axes.plot(line[across], line[quality], ".-", color="0.8", linewidth=0.8, zorder=1)
            highs = shown.get(f"{quality}_high", shown[quality])
            if numpy.isposinf(highs).any():  # an interval without an upper bound runs off the panel
                axes.set_ylim(top=1.05 * factor * max(shown[quality].max(), highs[numpy.isfinite(highs)].max()))
            name_lines(axes, ends)
        for axes in places[:, 0]:
            axes.set_ylabel(label)
    return figure


def best(settings: pandas.DataFrame, across: str) -> pandas.DataFrame:
    """By rising speed, those that no faster setting of the same method is as close as."""
    rows = settings.sort_values(across, ascending=False)
    return rows[rows["kl"] <= rows["kl"].cummin()].iloc[::-1]


def front(models: Sequence[tuple[str, pandas.DataFrame]]) -> Figure:
    """KL over the FLOPs ratio, a panel a model: the best settings of each method.

    Args:
        models: of each its title and its rows of ``measured_settings``.
    """
    panels = [
        (f"{name} (n={rows['n'].max()})", rows[rows["flops_ratio"].between(WHOLE, FASTEST)]) for name, rows in models
    ]
    return draw(panels, "flops_ratio", "kl", IN_FRONT)


def settings_figure(settings: pandas.DataFrame) -> Figure:
    """A panel a model, every setting: over the TTFT speedup where it was timed, else over the FLOPs ratio.

    Args:
        settings: from ``measured_settings``.
    """
    panels = []
    for model, rows in settings.groupby("model", sort=False):
        bars = "; bars: 95% interval" if rows["kl_low"].notna().any() else ""
        n = " to ".join(str(n) for n in dict.fromkeys((rows["n"].min(), rows["n"].max())))
        few = "demonstration, " if rows["n"].max() < LEAST_SAMPLES else ""
        panels.append((f"{model} ({few}n={n}{bars})", rows))
    return draw(panels, measured(settings, tuple(SPEEDS)) or "flops_ratio", "kl")


def figure5(summary: pandas.DataFrame, quality: str) -> Figure:
    """A panel per model and category; stars are the points that the paper states for Llama 2 7B.

    Args:
        summary: from ``summarise``, timed.
        quality: a column of ``QUALITIES``.
    """
    rows = category_rows(summary).assign(method_name=lambda rows: rows["method"])
    groups = list(rows.groupby(["model", "category"], sort=False))
    figure = draw(
        [(f"{category_title(str(category))} (n={of['n'].max()})\n{model}", of) for (model, category), of in groups],
        "ttft_speedup",
        quality,
    )
    for axes, ((_, category), _) in zip(figure.axes, groups, strict=False):
        for speedup, share in paper.ANCHORS.get(str(category), ()) if quality == "relative_score" else ():
            axes.plot(speedup, 100 * share, "*", color=BLACK, markersize=9)
            axes.annotate("paper", (speedup, 100 * share), (4, 4), textcoords="offset points", fontsize=7)
    return figure
