"""Relative score (or fidelity, where there is no score) over TTFT speedup, one point per method and variant."""

from __future__ import annotations

import math

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazybench.report.figures.style import method_style, new_figure, styled
from lazybench.report.paper import METHOD_TITLES
from lazybench.report.tables import category_rows


def tradeoff(summary: pandas.DataFrame) -> Figure:
    """One panel per model and category of the run."""
    with styled():
        rows = category_rows(summary) if not summary.empty else summary
        groups = list(rows.groupby(["model", "category"], sort=False)) if len(rows) else []
        columns = min(3, max(1, len(groups)))
        height = math.ceil(len(groups) / columns) or 1
        figure = new_figure(4.2 * columns, 3.2 * height + 0.5)
        for index, ((model, category), panel) in enumerate(groups):
            axes = figure.add_subplot(height, columns, index + 1)
            name, label = quality(panel)
            draw_points(axes, panel, name)
            axes.set(title=f"{category}, {model}", xlabel="TTFT speedup (x)", ylabel=label)
        legend(figure, rows["method"].unique() if len(rows) else [])
    return figure


QUALITIES = {  # column and axis label
    "relative_score": "score relative to baseline (%)",
    "fidelity_top1": "same token as baseline (%)",
}


def qualities(rows: pandas.DataFrame) -> list[str]:
    """The columns that stand for quality, of those that were measured: the score first."""
    return [name for name in QUALITIES if name in rows and rows[name].notna().any()]


def quality(rows: pandas.DataFrame) -> tuple[str, str]:
    """The first column that stands for quality, and its axis label."""
    for name in qualities(rows):
        return name, QUALITIES[name]
    return "generation_speedup", "generation speedup (%)"


def draw_points(axes: Axes, rows: pandas.DataFrame, name: str) -> None:
    """Points with intervals on both axes, a line along each method's points, the Pareto front in grey.

    A relative score has no upper bound where draws of samples leave the baseline nothing: its bar runs off the panel.
    """
    if "ttft_speedup" not in rows:
        return
    rows = rows[numpy.isfinite(rows[name]) & rows["ttft_speedup"].notna()]
    if rows.empty:
        axes.text(0.5, 0.5, "the baseline scores 0", ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    front = pareto_front(rows, name)
    axes.plot(front["ttft_speedup"], 100 * front[name], color="0.75", linewidth=5, zorder=0, solid_capstyle="round")
    axes.axhline(100, color="0.5", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
    highs = rows[f"{name}_high"] if f"{name}_high" in rows else rows[name]
    ceiling = 1.05 * max(rows[name].max(), highs[numpy.isfinite(highs)].max())
    for method, points in rows.groupby("method", sort=False):
        points = points.sort_values("ttft_speedup")
        colour, marker = method_style(str(method))
        axes.errorbar(
            points["ttft_speedup"],
            100 * points[name],
            xerr=_reach(points, "ttft_speedup", 1, math.inf),
            yerr=_reach(points, name, 100, ceiling),
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1,
            elinewidth=0.7,
            capsize=2,
        )
    if numpy.isposinf(highs).any():
        axes.set_ylim(top=100 * ceiling)


def pareto_front(rows: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """The points that no other beats in both speedup and quality, by falling speedup."""
    ordered = rows.sort_values(["ttft_speedup", name], ascending=False)
    return ordered[ordered[name] > ordered[name].cummax().shift(fill_value=-math.inf)]


def legend(figure: Figure, methods: object) -> None:
    """One legend below the panels."""
    from matplotlib.lines import Line2D

    handles = []
    for method in list(methods):  # type: ignore[call-overload]
        colour, marker = method_style(method)
        handles.append(Line2D([], [], color=colour, marker=marker, label=METHOD_TITLES.get(method, method)))
    handles.append(Line2D([], [], color="0.75", linewidth=5, label="Pareto front"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))


def _reach(points: pandas.DataFrame, name: str, factor: float, ceiling: float) -> list[pandas.Series]:
    """Distances from the point to its interval's bounds, an upper one that is infinite taken beyond the ceiling."""
    low = (points[name] - points[f"{name}_low"]).clip(lower=0).fillna(0) * factor
    bound = points[f"{name}_high"].replace(math.inf, 2 * ceiling)
    high = (bound - points[name]).clip(lower=0).fillna(0) * factor
    return [low, high]
