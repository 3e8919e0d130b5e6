"""The front: how closely each method follows the plain model, over the FLOPs or the memory that it saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas
from matplotlib.figure import Figure

from lazybench.report.curves import Curve, divergence, same_token
from lazybench.report.figures.style import look, new_figure, styled
from lazybench.report.statistics import LEAST_SAMPLES, Estimate

CAPTION = (
    "Left: share of the plain model's tokens that a method predicts too. Right: KL divergence of its next-token "
    "distribution from the plain model's, geometric mean over samples. A point is a setting, a line joins a method's. "
    f"Bars: 95% intervals over samples; below {LEAST_SAMPLES} samples the lowest and highest value."
)
PANELS = (("same token as plain model (%)", "linear"), ("KL divergence (nats)", "log"))


def draw(curves: Sequence[Curve], names: Sequence[str], title: str, across: str) -> Figure:
    """Two panels over one ratio.

    Args:
        names: of each curve, for the legend.
        across: which ratio: "FLOPs ratio".
    """
    with styled():
        figure = new_figure(9.5, 4.6)
        panels = figure.subplots(1, 2)
        for axes, (label, scale) in zip(panels, PANELS, strict=True):
            axes.set(xlabel=f"{across} (x)", ylabel=label, yscale=scale)
        for place, (curve, name) in enumerate(zip(curves, names, strict=True)):
            colour, marker = look(curve.method)
            dashed = any(other.method == curve.method for other in curves[:place])
            speeds = numpy.array(curve.speeds)
            alone = numpy.array(curve.whole)  # no line leads from these to others
            for axes, found in zip(panels, zip(*map(_estimates, curve.settings), strict=True), strict=True):
                values = numpy.array([[one.value, one.low, one.high] for one in found])
                reach = numpy.abs(values[:, 1:] - values[:, :1]).T
                bars = {"elinewidth": 0.6, "capsize": 1.5, "markersize": 5, "color": colour, "marker": marker}
                line = {"linewidth": 1.2, "linestyle": "--" if dashed else "-", "label": name}
                axes.errorbar(speeds[~alone], values[~alone, 0], reach[:, ~alone], **line, **bars)
                if alone.any():
                    axes.errorbar(speeds[alone], values[alone, 0], reach[:, alone], linestyle="none", **bars)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        n = {len(setting) for curve in curves for setting in curve.settings}
        figure.suptitle(f"{title} (n={min(n)}{'' if len(n) == 1 else f' to {max(n)}'})")
    return figure


def _estimates(setting: pandas.DataFrame) -> tuple[Estimate, Estimate]:
    same = same_token(setting)
    return Estimate(100 * same.value, 100 * same.low, 100 * same.high, same.kind), divergence(setting)
