"""Quality over speed, one point per method and its settings: of one run, and figure 5 of the paper."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.figures.style import BLACK, look, new_figure, points, styled
from lazybench.report.frame import settings_label
from lazybench.report.names import Names, category_rows, category_title, short_names

NEAR: dict[str, Any] = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 7}
LETTER, LINE = 0.066, 0.19  # inches, of the legend's font
# column and axis label, the first that was measured
QUALITIES = {"relative_score": "score relative to baseline (%)", "fidelity_top1": "same token as baseline (%)"}
SPEEDS = {"ttft_speedup": "TTFT speedup (x)", "flops_ratio": "FLOPs ratio (x)"}


def qualities(rows: pandas.DataFrame) -> list[str]:
    """The columns that stand for quality, of those that were measured: the score first."""
    return [name for name in QUALITIES if name in rows and rows[name].notna().any()]


def draw(summary: pandas.DataFrame, quality: str | None = None) -> Figure:
    """One panel per model and category; stars are the points that the paper states for Llama 2 7B.

    Args:
        quality: the column that stands for it; None: the first that was measured.
    """
    with styled():
        rows = category_rows(summary) if len(summary) else summary
        names = short_names(rows) if len(rows) else {}
        panels = list(rows.groupby(["model", "category"], sort=False)) if len(rows) else []
        columns = min(3, max(1, len(panels)))
        lines = math.ceil(len(panels) / columns) or 1
        figure = new_figure(4.2 * columns, 3.2 * lines)
        for index, ((model, category), panel) in enumerate(panels):
            axes = figure.add_subplot(lines, columns, index + 1)
            name = quality or next(iter(qualities(panel)), None)
            across = next((column for column in SPEEDS if panel[column].notna().any()), "flops_ratio")
            axes.set(title=f"{category_title(str(category))} (n={panel['n'].max()})\n{model}", xlabel=SPEEDS[across])
            _points(axes, panel, name, names, across)
            anchors = paper.ANCHORS.get(str(category), ()) if across == "ttft_speedup" else ()
            for speedup, share in anchors if name == "relative_score" else ():
                axes.plot(speedup, 100 * share, "*", color=BLACK, markersize=9)
                axes.annotate("paper", (speedup, 100 * share), **NEAR)
        _legend(figure, names, rows)
    return figure


def _points(axes: Axes, rows: pandas.DataFrame, name: str | None, names: Names, across: str) -> None:
    """Points with intervals on both axes, a line along each method's; an interval without an upper bound runs off."""
    rows = rows[rows[across].notna()]
    shown = rows[numpy.isfinite(rows[name])] if name else rows[:0]
    if name is None or shown.empty:
        why = "not timed" if rows.empty else "the baseline scores 0" if name else "no quality measured"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    axes.set_ylabel(QUALITIES[name])
    axes.axhline(100, color="0.5", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
    for method, group in shown.groupby("method", sort=False):
        group = group.sort_values(across)
        points(axes, str(method), group, across, name, 100)
        for row in group.to_dict("records") if len(group) > 1 else ():
            # the number that the legend and the tables give this one's parameters
            number = names[row["method"], row["params"]].rsplit(" ", 1)[-1]
            axes.annotate(number, (row[across], 100 * row[name]), color=look(str(method))[0], **NEAR)
        if method == "baseline":
            axes.annotate("baseline", (1, 100), **NEAR)
    highs = shown[f"{name}_high"]
    if numpy.isposinf(highs).any():
        axes.set_ylim(top=105 * max(shown[name].max(), highs[numpy.isfinite(highs)].max()))


def _legend(figure: Figure, names: Names, rows: pandas.DataFrame) -> None:
    """One legend below the panels; the figure grows by its height.

    A method that stands with several parameters has a line for each, with the number at its point.
    """
    handles = []
    for (method, params), name in names.items():
        colour, marker = look(method)
        label = f"{name}: {settings_label(method, params)}" if name != title(method) else name
        handles.append(Line2D([], [], color=colour, marker=marker, label=label))
    if handles and rows[[f"{name}_low" for name in (*qualities(rows), "ttft_speedup")]].notna().any(axis=None):
        handles.append(Line2D([], [], color="0.3", linewidth=0.7, marker="|", label="bars: 95% interval"))
    width, height = figure.get_size_inches()
    widest = LETTER * max((len(str(handle.get_label())) for handle in handles), default=0) + 0.5
    columns = max(1, int(width / widest))
    figure.set_size_inches(width, height + LINE * (math.ceil(len(handles) / columns) + 1))
    small = min(1.0, width / widest)  # one label alone may be wider than the figure
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8 * small)
