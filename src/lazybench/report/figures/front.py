"""The front: how closely each method follows the plain model, over the FLOPs or the memory that it saves."""

from __future__ import annotations

import pandas
from matplotlib.figure import Figure

from lazybench.report.figures.style import new_figure, points, styled
from lazybench.report.statistics import LEAST_SAMPLES

CAPTION = (
    "Left: share of the plain model's tokens that a method predicts too. Right: KL divergence of its next-token "
    "distribution from the plain model's, geometric mean over samples. A point is a setting, a line joins a method's. "
    f"Bars: 95% intervals over samples, from {LEAST_SAMPLES} on."
)
PANELS = (("same_token", "same token as plain model (%)", 100, "linear"), ("kl", "KL divergence (nats)", 1, "log"))


def draw(settings: pandas.DataFrame, across: str, label: str) -> Figure:
    """Two panels over one ratio.

    Args:
        settings: one model's, from ``measured_settings``.
        across: the ratio's column, and its name.
    """
    rows = settings[settings[across].notna()].sort_values(across)
    with styled():
        figure = new_figure(9.5, 4.6)
        panels = figure.subplots(1, 2)
        for axes, (name, quality, factor, scale) in zip(panels, PANELS, strict=True):
            axes.set(xlabel=f"{label} (x)", ylabel=quality, yscale=scale)
            for (method, family), one in rows.groupby(["method_name", "family"], sort=False):
                first = rows.loc[rows["method_name"] == method, "family"].iloc[0]
                style = {"linestyle": "-" if family == first else "--"}
                style["label"] = f"{one['method'].iloc[0]}, {family}".strip(", ")
                points(axes, str(method), one, across, name, factor, **style)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        n = f"{rows['n'].min()} to {rows['n'].max()}" if rows["n"].nunique() > 1 else rows["n"].iloc[0]
        figure.suptitle(f"{rows['model'].iloc[0]} (n={n})")
    return figure
