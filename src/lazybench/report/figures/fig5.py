"""Figure 5: relative score over TTFT speedup, a panel per category, a series per method."""

from __future__ import annotations

import math

import pandas
from matplotlib.figure import Figure

from lazybench.report import paper
from lazybench.report.figures.style import BLACK, new_figure, styled
from lazybench.report.figures.tradeoff import QUALITIES, SPEEDS, draw_points, legend, quality, speed
from lazybench.report.names import category_rows, category_titles, short_names


def draw(summary: pandas.DataFrame, model: str, name: str | None = None) -> Figure:
    """Six panels of one model; stars are the points that the paper states for Llama 2 7B.

    Args:
        name: the column that stands for quality; None: the first that was measured.
    """
    rows = category_rows(summary)
    rows = rows[rows["model"] == model]
    name, label = (name, QUALITIES[name]) if name else quality(rows)
    names, across = short_names(rows), speed(rows)
    with styled():
        titles = category_titles(rows)
        columns = min(3, len(titles))
        lines = math.ceil(len(titles) / columns)
        figure = new_figure(3.2 * columns, 3.1 * lines)
        panels = figure.subplots(lines, columns, squeeze=False)
        for axes in panels.flat[len(titles) :]:
            axes.set_axis_off()
        for axes, (category, title) in zip(panels.flat, titles.items(), strict=False):
            panel = rows[rows["category"] == category]
            axes.set_title(f"{title} (n={panel['n'].max()})" if len(panel) else title)
            if panel.empty:
                axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="0.4")
                axes.set(xticks=[], yticks=[])
                continue
            draw_points(axes, panel, name, names, across)
            for anchor in paper.ANCHORS:
                if anchor.category == category and name == "relative_score":
                    point = (anchor.ttft_speedup, 100 * anchor.relative_score_at_least)
                    axes.plot(*point, "*", color=BLACK, markersize=9)
                    axes.annotate("paper", point, textcoords="offset points", xytext=(4, 5), fontsize=7)
        for axes in panels[-1]:
            axes.set_xlabel(SPEEDS[across])
        for axes in panels[:, 0]:
            axes.set_ylabel(label)
        figure.suptitle(model)
        legend(figure, names, rows)
    return figure
