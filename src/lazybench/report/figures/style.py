"""One look for every figure: readable in print, in grey and for colour-blind readers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lazybench.methods import METHODS, Method
from lazybench.run.files import write_atomically

# Okabe and Ito, https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
LINES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (VERMILION, "D", ":"),
    (PURPLE, "v", "-"),
    (SKY, "P", "--"),
)
SETTINGS: Any = {  # matplotlib types its keys one by one
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


def look(method: str) -> tuple[str, str]:
    """A method's colour and marker, the same in every figure; grey of one that is not at hand."""
    return METHODS[method].drawn_as if method in METHODS else Method.drawn_as


def points(axes: Axes, method: str, rows: pandas.DataFrame, across: str, name: str, factor: float, **style: Any) -> Any:
    """A method's points with their intervals, on both axes where both have one, and a line along them, which it gives.

    Args:
        across, name: columns of the rows; ``NAME_low`` and ``NAME_high`` bound one.
        factor: what the values of ``name`` are shown times.
    """

    def reach(column: str) -> list[pandas.Series] | None:
        if f"{column}_low" not in rows:  # FLOPs are counted, not estimated
            return None
        values, high = rows[column], rows[f"{column}_high"].replace(numpy.inf, 1e3)  # off the panel
        return [(values - rows[f"{column}_low"]).clip(lower=0), (high - values).clip(lower=0)]

    colour, marker = look(method)
    yerr = [factor * side for side in reach(name) or ()] or None
    bars: dict[str, Any] = {"elinewidth": 0.7, "capsize": 2, "markersize": 6, "linewidth": 1, **style}
    return axes.errorbar(rows[across], factor * rows[name], yerr, reach(across), color=colour, marker=marker, **bars)[0]


def name_lines(axes: Axes, lines: Mapping[str, tuple[float, Any]], width: int = 24, **place: Any) -> None:
    """Write the lines' names right of the panel, or at another place, from the highest end to the lowest.

    Args:
        lines: by name the height of its last point, and what was drawn.
        width: characters of a name in a row.
    """
    highest_first = sorted(lines.items(), key=lambda line: -line[1][0])
    names = [textwrap.fill(name, width) for name, _ in highest_first]
    drawn = [line for _, (_, line) in highest_first]
    place = place or {"loc": "center left", "bbox_to_anchor": (1, 0.5), "fontsize": 8}
    legend = axes.legend(drawn, names, ncols=1 + len(names) // 20, **place)
    for text, line in zip(legend.get_texts(), drawn, strict=True):
        text.set_color(line.get_color())


# draw inside ``with styled():``, or in a function that it decorates: the settings hold there and nowhere else
styled = partial(matplotlib.rc_context, SETTINGS)


@styled()
def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
