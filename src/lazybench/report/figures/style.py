"""One look for every figure: readable in print, in grey and for colour-blind readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from lazybench.run.files import write_atomically

# Okabe and Ito, https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
POWER = re.compile(r"\$\\mathdefault\{(?:-?\d+\\times\s?)?-?10\^\{-?\d+\}\}\$")  # a logarithmic axis' label
Style = tuple[str, str]  # colour and marker
# Paul Tol's muted colours, https://sronpersonalpages.nl/~pault/
INDIGO, WINE, OLIVE, TEAL, ROSE, FOREST, BROWN = (
    *("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#117733", "#661100"),
)
# each method has one look everywhere; whoever adds one gives it a colour and marker here, or it is grey
METHODS: dict[str, Style] = {
    "baseline": (BLACK, "o"),
    "random_drop": (ORANGE, "s"),
    "static_pruning": (SKY, "^"),
    "prompt_compression": (PURPLE, "D"),
    "lazyllm": (VERMILION, "P"),
    "lazyllm_evicted": (VERMILION, "X"),
    "taper": (BLUE, "*"),
    "plain": ("#777777", "o"),
    "asl": (INDIGO, "X"),
    "claa": (WINE, "<"),
    "fastkv": (OLIVE, ">"),
    "first_last": (TEAL, "h"),
    "gemfilter": (ROSE, "v"),
    "h2o": (FOREST, "p"),
    "oracle": (YELLOW, "8"),
    "pyramid_infer": (BROWN, "d"),
    "snapkv": (INDIGO, "H"),
    "spec_prefill": (WINE, "D"),
    "uniprefill": (GREEN, "s"),
}
OF_OTHERS = ("0.5", "o")
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
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "lazybench",
}


def look(method: str) -> Style:
    """A method's colour and marker, the same in every figure."""
    return METHODS.get(method, OF_OTHERS)


def points(
    axes: Axes, method: str, rows: pandas.DataFrame, across: str, name: str, factor: float, **style: Any
) -> None:
    """A method's points with their intervals, on both axes where both have one, and a line along them.

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
    axes.errorbar(rows[across], factor * rows[name], yerr, reach(across), color=colour, marker=marker, **bars)


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside this: the settings hold here and nowhere else."""
    with matplotlib.rc_context(SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches; no window and no global state (pyplot) needed."""
    return Figure(figsize=(width, height))


def save(figure: Figure, path: Path) -> None:
    """Write atomically, in the format that the name ends in, without a date: the same data gives the same file."""
    buffer = io.BytesIO()
    save_to(figure, buffer, path.suffix[1:])
    write_atomically(path, buffer.getvalue())


def save_to(figure: Figure, buffer: io.BytesIO, kind: str) -> None:
    """Write to memory: ``png``, ``pdf`` or ``svg``."""
    metadata: dict[str, Any] | None = {"CreationDate": None} if kind == "pdf" else None
    with styled():
        _names_are_no_formulas(figure)
        figure.savefig(buffer, format=kind, metadata=metadata)


def _names_are_no_formulas(figure: Figure) -> None:
    """Only a logarithmic axis writes mathtext; a dollar sign in a name is a dollar sign."""
    for axes in figure.axes:
        axes.get_xticklabels(which="both")  # gives the ticks their texts
        axes.get_yticklabels(which="both")
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text()):
        if isinstance(text, Text) and not POWER.fullmatch(text.get_text()):
            text.set_parse_math(False)
