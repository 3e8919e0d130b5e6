"""Needle in a haystack: what is found, by the prompt's length and by how deep the needle lies, a panel per method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas
from matplotlib.figure import Figure

from lazybench.report.figures.style import new_figure, styled
from lazybench.report.names import short_names
from lazybench.store.record import Record

DEPTHS = ("0-20%", "20-40%", "40-60%", "60-80%", "80-100%")  # of the prompt, from its start
QUALITIES = {"score": "needle found (%)", "fidelity_top1": "same token as plain model (%)"}
CAPTION = (
    "Needle: score and share of the plain model's tokens, by prompt length and by the needle's depth in it; the mean "
    "over the samples of a cell"
)


def rows(records: Sequence[Record], model: str) -> pandas.DataFrame:
    """One row per record that says where its needle lay: ``length`` as asked, ``depth`` as an index of ``DEPTHS``."""
    found = [
        {
            "model": model,
            "method": record.method,
            "variant": record.variant,
            "length": int(str(record.details["length"])),
            "depth": min(int(float(str(record.details["depth"])) * len(DEPTHS)), len(DEPTHS) - 1),
            **{name: getattr(record, name) for name in QUALITIES},
        }
        for record in records
        if record.error is None and record.details and {"length", "depth"} <= record.details.keys()
    ]
    return pandas.DataFrame(found)


def worth_drawing(rows: pandas.DataFrame) -> bool:
    """Whether there is more than one length, and something measured at it."""
    return len(rows) > 0 and rows["length"].nunique() > 1 and any(rows[name].notna().any() for name in QUALITIES)


def cells(rows: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """(depths, lengths) the mean of a quality, 0..1; NaN where no needle lay."""
    grid = rows.assign(**{name: rows[name].astype(float)}).pivot_table(name, "depth", "length", dropna=False)
    return grid.reindex(index=range(len(DEPTHS)), columns=sorted(rows["length"].unique()))


def draw(rows: pandas.DataFrame) -> Figure:
    """A row of panels for each quality that was measured, a column for each method and setting of one model."""
    measured = [name for name in QUALITIES if rows[name].notna().any()]
    names = short_names(rows)
    with styled():
        width = max(2.0, 0.55 * rows["length"].nunique() + 0.9)
        figure = new_figure(width * len(names) + 1.4, 2.5 * len(measured) + 0.6)
        panels = figure.subplots(len(measured), len(names), squeeze=False, sharey=True)
        for line, name in zip(panels, measured, strict=True):
            for axes, ((method, variant), title) in zip(line, names.items(), strict=True):
                grid = cells(rows[(rows["method"] == method) & (rows["variant"] == variant)], name)
                values = 100 * grid.to_numpy(dtype=float)
                image = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
                for depth, place in numpy.argwhere(~numpy.isnan(values)):
                    value = values[depth, place]
                    colour = "black" if value > 55 else "white"
                    axes.text(place, depth, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
                axes.grid(visible=False)
                axes.set(xticks=range(len(grid.columns)), xticklabels=grid.columns, yticks=range(len(DEPTHS)))
                axes.set_yticklabels(DEPTHS)
                axes.set_title(title, fontsize=8)
            figure.colorbar(image, ax=list(line), label=QUALITIES[name])
            line[0].set_ylabel("depth of the needle")
        for axes in panels[-1]:
            axes.set_xlabel("prompt tokens (about)")
        least, most = (f(rows.groupby(["method", "variant", "length", "depth"]).size()) for f in (min, max))
        n = f"n={least} to {most}" if least != most else f"n={least}"
        figure.suptitle(f"{rows['model'].iloc[0]} ({n} in each cell)")
    return figure
