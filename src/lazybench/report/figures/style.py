"""One look for every figure: readable in print, in grey and for colour-blind readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from lazybench.run.files import write_atomically

# Okabe and Ito, https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
POWER = re.compile(r"\$\\mathdefault\{(?:-?\d+\\times\s?)?-?10\^\{-?\d+\}\}\$")  # a logarithmic axis' label
Style = tuple[str, str]  # colour and marker
METHODS: dict[str, Style] = {
    "baseline": (BLACK, "o"),
    "random_drop": (ORANGE, "s"),
    "static_pruning": (SKY, "^"),
    "prompt_compression": (PURPLE, "D"),
    "lazyllm": (VERMILION, "P"),
    "taper": (BLUE, "*"),
}
# of methods that the paper does not have, in order: Paul Tol's muted colours, each with every marker
OTHER_COLOURS = ("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#117733", "#661100")
OTHER_MARKERS = ("X", "<", ">", "h", "*", "p", "8", "d", "H")
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


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """Each method's colour and marker, no two alike: the paper's have theirs, the others take them by name in turn."""
    others = sorted(set(methods) - METHODS.keys())
    # 7 colours and 9 markers have no common divisor: both advance, and the first 63 pairs are different ones
    taken = {
        name: (OTHER_COLOURS[place % len(OTHER_COLOURS)], OTHER_MARKERS[place % len(OTHER_MARKERS)])
        for place, name in enumerate(others)
    }
    return METHODS | taken


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
