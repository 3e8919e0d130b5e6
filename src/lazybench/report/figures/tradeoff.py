"""Quality over speed: of every setting of a model, and figure 5 of the paper by category."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.figures.style import BLACK, look, name_lines, new_figure, points, styled
from lazybench.report.names import Names, category_rows, category_title, short_names
from lazybench.report.statistics import LEAST_SAMPLES

FAMILY = 24  # letters of what tells two lines of a method apart; more are not written in the panel
NEAR: dict[str, Any] = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 7}
SPEEDS = {"ttft_speedup": "TTFT speedup (x)", "flops_ratio": "FLOPs ratio (x)", "memory_ratio": "memory ratio (x)"}
# column to axis label and factor, the first that was measured
QUALITIES = {"relative_score": "score relative to baseline (%)", "fidelity_top1": "same token as baseline (%)"}
OF_SETTINGS = {
    "kl": ("KL divergence from the plain model (nats)", 1),
    "relative_score": (QUALITIES["relative_score"], 100),
}


def captioned(n: float) -> str:
    """``n=98``, and what fewer than ten samples are."""
    return f"n={n:.0f}" if n >= LEAST_SAMPLES else f"demonstration, n={n:.0f}"


def settings_figure(settings: pandas.DataFrame, across: str | None = None, names: Names | None = None) -> Figure:
    """One panel: a point a setting, a line along each method's; KL, or the score where no KL was measured.

    Args:
        settings: one model's, from ``measured_settings``.
        across: a column of ``SPEEDS``; None: TTFT where it was timed, else FLOPs.
        names: what tables call the settings, to tell several of one method apart.
    """
    across = across or ("ttft_speedup" if settings["ttft_speedup"].notna().any() else "flops_ratio")
    name = next((name for name in OF_SETTINGS if settings[name].notna().any()), "kl")
    label, factor = OF_SETTINGS[name]
    rows = settings[settings[across].notna() & numpy.isfinite(settings[name])].sort_values(across)
    families = rows.groupby("method_name")["family"].unique()
    spoken: set[str] = set()
    with styled():
        figure = new_figure(7.2, 4.2)
        axes = figure.add_subplot()
        axes.set(xlabel=SPEEDS[across], ylabel=label, yscale="log" if name == "kl" else "linear")
        axes.yaxis.set_major_formatter("{x:g}")
        if name == "kl":
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
        ends = []
        for (method, family), one in rows.groupby(["method_name", "family"], sort=False):
            style = "-" if family == families[method][0] else "--"
            points(axes, str(method), one, across, name, factor, linestyle=style)
            last = one.iloc[-1]
            told = str(family) if len(families[method]) > 1 and len(str(family)) <= FAMILY else ""
            if (text := f"{title(str(method))}, {told}".strip(", ")) not in spoken:
                ends.append((text, look(str(method))[0], float(last[across]), factor * float(last[name])))
                spoken.add(text)
            for row in one.to_dict("records") if names and len(one) > 1 else ():
                number = (names or {}).get((row["method_name"], row["params"]), "").rsplit(" ", 1)[-1]
                axes.annotate(number, (row[across], factor * row[name]), color=look(str(method))[0], **NEAR)
        name_lines(axes, ends)
        bars = "; bars: 95% interval" if settings[f"{name}_low"].notna().any() else ""
        low, high = settings["n"].min(), settings["n"].max()
        n = f"n={low} to {high}" if low < high else captioned(high)
        axes.set_title(f"{textwrap.fill(settings['model'].iloc[0], 60)}\n{n}{bars}")
    return figure


def qualities(rows: pandas.DataFrame) -> list[str]:
    """The columns that stand for quality, of those that were measured: the score first."""
    return [name for name in QUALITIES if name in rows and rows[name].notna().any()]


def draw(summary: pandas.DataFrame, quality: str) -> Figure:
    """Figure 5: one panel per model and category; stars are the points that the paper states for Llama 2 7B.

    Args:
        summary: from ``summarise``, timed.
        quality: a column of ``QUALITIES``.
    """
    with styled():
        rows = category_rows(summary)
        names, panels = short_names(rows), list(rows.groupby(["model", "category"], sort=False))
        columns = min(2, len(panels))
        figure = new_figure(5.4 * columns, 3.2 * math.ceil(len(panels) / columns))
        for index, ((model, category), panel) in enumerate(panels):
            axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, index + 1)
            bars = (
                "; bars: 95% interval" if panel[[f"{quality}_low", "ttft_speedup_low"]].notna().any(axis=None) else ""
            )
            axes.set_title(f"{category_title(str(category))} ({captioned(panel['n'].max())}{bars})\n{model}")
            _panel(axes, panel, quality, names)
            for speedup, share in paper.ANCHORS.get(str(category), ()) if quality == "relative_score" else ():
                axes.plot(speedup, 100 * share, "*", color=BLACK, markersize=9)
                axes.annotate("paper", (speedup, 100 * share), **NEAR)
    return figure


def _panel(axes: Axes, rows: pandas.DataFrame, name: str, names: Names) -> None:
    """Points with intervals on both axes, a line along each method's, their names beside the panel."""
    shown = rows[rows["ttft_speedup"].notna() & numpy.isfinite(rows[name])].sort_values("ttft_speedup")
    if shown.empty:
        why = "not timed" if rows["ttft_speedup"].isna().all() else "no quality, or a baseline that scores 0"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    axes.set(xlabel=SPEEDS["ttft_speedup"], ylabel=QUALITIES[name])
    axes.axhline(100, color="0.5", linewidth=0.8, linestyle=":")
    axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
    ends = []
    for method, group in shown.groupby("method", sort=False):
        points(axes, str(method), group, "ttft_speedup", name, 100)
        at = list(zip(group["ttft_speedup"], 100 * group[name], strict=True))
        ends.append((title(str(method)), look(str(method))[0], *at[-1]))
        for params, place in zip(group["params"], at, strict=True) if len(at) > 1 else ():
            # the number that the tables give this one's parameters
            axes.annotate(names[str(method), params].rsplit(" ", 1)[-1], place, color=ends[-1][1], **NEAR)
    highs = shown[f"{name}_high"]
    if numpy.isposinf(highs).any():  # an interval without an upper bound runs off the panel
        axes.set_ylim(top=105 * max(shown[name].max(), highs[numpy.isfinite(highs)].max()))
    name_lines(axes, ends)
