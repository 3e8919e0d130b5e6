"""One look for every figure: readable in print, in grey and for colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lazybench.store.files import write_atomically

# Okabe and Ito, https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
METHODS: dict[str, tuple[str, str]] = {  # colour and marker
    "baseline": (BLACK, "o"),
    "random_drop": (ORANGE, "s"),
    "static_pruning": (SKY, "^"),
    "prompt_compression": (PURPLE, "D"),
    "llmlingua": (GREEN, "v"),
    "lazyllm": (VERMILION, "P"),
}
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


def method_style(method: str) -> tuple[str, str]:
    """Colour and marker; a method that the paper does not have gets the grey cross."""
    return METHODS.get(method, ("#666666", "X"))


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
        figure.savefig(buffer, format=kind, metadata=metadata)
