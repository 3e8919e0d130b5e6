"""The front: KL over the FLOPs ratio, a panel a model, with the best settings of each method."""

from __future__ import annotations

from collections.abc import Sequence

import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lazybench.methods import title
from lazybench.report.curves import WHOLE
from lazybench.report.figures.style import look, name_lines, new_figure, points, styled

NAMED = ("taper", "lazyllm", "uniprefill", "fastkv", "spec_prefill", "first_last")
FASTEST = 4.0  # FLOPs ratio at the right edge


def draw(models: Sequence[tuple[str, pandas.DataFrame]]) -> Figure:
    """One panel a model; the methods of ``NAMED`` in colour, the others grey.

    Args:
        models: of each its title and its rows of ``measured_settings``.
    """
    with styled():
        figure = new_figure(5.2 * len(models), 3.4)
        panels = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
        for axes, (name, settings) in zip(panels, models, strict=True):
            axes.set(xlabel="FLOPs ratio (x)", yscale="log")
            axes.set_title(f"{name} (n={settings['n'].max()})")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
            ends, rows = [], settings[settings["flops_ratio"].between(WHOLE, FASTEST) & (settings["kl"] > 0)]
            for method, of in rows.groupby("method_name", sort=False):
                line = best(of)
                if method in NAMED:
                    last = line.iloc[-1]
                    points(axes, str(method), line, "flops_ratio", "kl", 1, zorder=3)
                    ends.append((title(str(method)), look(str(method))[0], last["flops_ratio"], last["kl"]))
                elif method != "oracle":
                    axes.plot(line["flops_ratio"], line["kl"], ".-", color="0.8", linewidth=0.8, zorder=1)
            name_lines(axes, ends)
        panels[0].set_ylabel("KL from the plain model (nats)")
    return figure


def best(settings: pandas.DataFrame) -> pandas.DataFrame:
    """By rising FLOPs ratio, those that no faster setting of the same method is as close as."""
    rows = settings.sort_values("flops_ratio", ascending=False)
    return rows[rows["kl"] <= rows["kl"].cummin()].iloc[::-1]
