"""Relative score (or fidelity, where there is no score) over TTFT speedup, one point per method and its settings."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazybench.methods import title
from lazybench.report.figures.style import method_styles, new_figure, styled
from lazybench.report.names import category_rows, category_title, short_names
from lazybench.report.samples import settings_label


def tradeoff(summary: pandas.DataFrame) -> Figure:
    """One panel per model and category of the run."""
    with styled():
        rows = category_rows(summary) if not summary.empty else summary
        names = short_names(rows) if len(rows) else {}
        groups = list(rows.groupby(["model", "category"], sort=False)) if len(rows) else []
        columns = min(3, max(1, len(groups)))
        height = math.ceil(len(groups) / columns) or 1
        figure = new_figure(4.2 * columns, 3.2 * height)
        for index, ((model, category), panel) in enumerate(groups):
            axes = figure.add_subplot(height, columns, index + 1)
            name, label = quality(panel)
            draw_points(axes, panel, name, names, speed(panel))
            axes.set(
                title=f"{category_title(str(category))} (n={panel['n'].max()})\n{model}",
                xlabel=SPEEDS[speed(panel)],
                ylabel=label,
            )
        legend(figure, names, rows)
    return figure


Names = dict[tuple[str, str], str]  # method and its settings: see short_names
LETTER, LINE = 0.066, 0.19  # inches, of the legend's font
QUALITIES = {  # column and axis label
    "relative_score": "score relative to baseline (%)",
    "fidelity_top1": "same token as baseline (%)",
}


SPEEDS = {"ttft_speedup": "TTFT speedup (x)", "flops_ratio": "FLOPs ratio (x)"}


def speed(rows: pandas.DataFrame) -> str:
    """The column that stands for speed: the FLOPs ratio where nothing was timed."""
    return next((name for name in SPEEDS if name in rows and rows[name].notna().any()), "ttft_speedup")


def qualities(rows: pandas.DataFrame) -> list[str]:
    """The columns that stand for quality, of those that were measured: the score first."""
    return [name for name in QUALITIES if name in rows and rows[name].notna().any()]


def quality(rows: pandas.DataFrame) -> tuple[str, str]:
    """The first column that stands for quality, and its axis label."""
    for name in qualities(rows):
        return name, QUALITIES[name]
    return "generation_speedup", "generation speedup (%)"


def draw_points(axes: Axes, rows: pandas.DataFrame, name: str, names: Names, across: str) -> None:
    """Points with intervals on both axes, a line along each method's points, the Pareto front in grey.

    Args:
        name, across: the columns that stand for quality and for speed.

    A relative score has no upper bound where draws of samples leave the baseline nothing: its bar runs off the panel.
    """
    if across not in rows or name not in rows:
        return
    timed = rows[rows[across].notna()]
    rows = timed[numpy.isfinite(timed[name])]
    if rows.empty:
        why = "the baseline scores 0" if len(timed) else "not timed"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    styles = method_styles(method for method, _ in names)
    front = pareto_front(rows, name, across)
    axes.plot(front[across], 100 * front[name], color="0.75", linewidth=5, zorder=0, solid_capstyle="round")
    axes.axhline(100, color="0.5", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
    highs = rows[f"{name}_high"] if f"{name}_high" in rows else rows[name]
    ceiling = 1.05 * max(rows[name].max(), highs[numpy.isfinite(highs)].max())
    for method, points in rows.groupby("method", sort=False):
        points = points.sort_values(across)
        colour, marker = styles[str(method)]
        axes.errorbar(
            points[across],
            100 * points[name],
            xerr=_reach(points, across, 1, math.inf),
            yerr=_reach(points, name, 100, ceiling),
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1,
            elinewidth=0.7,
            capsize=2,
        )
        if method == "baseline":
            axes.annotate("baseline", (1, 100), textcoords="offset points", xytext=(5, 4), fontsize=7)
        elif len(points) > 1:  # the number that the legend and the tables give this one's parameters
            for row in points.itertuples():
                number = names[str(row.method), str(row.params)].rsplit(" ", 1)[-1]
                place: dict[str, Any] = {
                    "textcoords": "offset points",
                    "xytext": (4, 4),
                    "fontsize": 7,
                    "color": colour,
                }
                axes.annotate(number, (getattr(row, across), 100 * getattr(row, name)), **place)
    if numpy.isposinf(highs).any():
        axes.set_ylim(top=100 * ceiling)


def pareto_front(rows: pandas.DataFrame, name: str, across: str) -> pandas.DataFrame:
    """The points that no other beats in both speedup and quality, by falling speedup."""
    ordered = rows.sort_values([across, name], ascending=False)
    return ordered[ordered[name] > ordered[name].cummax().shift(fill_value=-math.inf)]


def bars_meaning(rows: pandas.DataFrame) -> str:
    """What the error bars of a summary's rows are: ``bars: 95% interval``; empty where there are none."""
    kinds = list(dict.fromkeys(rows["bounds"].dropna())) if "bounds" in rows else []
    return f"bars: {', '.join(kinds)}" if kinds else ""


def legend(figure: Figure, names: Names, rows: pandas.DataFrame) -> None:
    """One legend below the panels, as many columns as the figure is wide; the figure grows by its height.

    A method that stands with several parameters has a line for each, with the number at its point.
    """
    from matplotlib.lines import Line2D

    handles = []
    styles = method_styles(method for method, _ in names)
    for (method, params), name in names.items():
        colour, marker = styles[method]
        several = name != title(method)
        label = f"{name}: {settings_label(method, params)}" if several else name
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
    handles.append(Line2D([], [], color="0.75", linewidth=5, label="Pareto front"))
    if bars := bars_meaning(rows):
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, marker="|", label=bars))
    widest = max(len(str(handle.get_label())) for handle in handles)
    width, height = figure.get_size_inches()
    columns = max(1, min(4, len(handles), int(width / (0.5 + LETTER * widest))))
    lines = math.ceil(len(handles) / columns)
    figure.set_size_inches(width, height + LINE * (lines + 1))
    small = min(1.0, width / (0.5 + LETTER * widest))  # one label alone may be wider than the figure
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8 * small)


def _reach(points: pandas.DataFrame, name: str, factor: float, ceiling: float) -> list[pandas.Series] | None:
    """Distances from the point to its interval's bounds, an upper one that is infinite taken beyond the ceiling.

    A point without bounds (the baseline, relative to itself) has no bar.
    """
    if f"{name}_low" not in points:  # FLOPs are counted, not estimated
        return None
    low = (points[name] - points[f"{name}_low"]).clip(lower=0) * factor
    bound = points[f"{name}_high"].replace(math.inf, 2 * ceiling)
    high = (bound - points[name]).clip(lower=0) * factor
    return [low, high]
