"""The front: how closely each method follows the plain model, over the FLOPs or the memory that it saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from matplotlib.figure import Figure

from lazybench.report.curves import Curve, divergence, same_token
from lazybench.report.figures.style import look, new_figure, styled
from lazybench.report.statistics import LEAST_SAMPLES

CAPTION = (
    "Left: share of the plain model's tokens that a method predicts too. Right: KL divergence of its next-token "
    "distribution from the plain model's, geometric mean over samples. A point is a setting, a line joins a method's. "
    f"Bars: 95% intervals over samples, from {LEAST_SAMPLES} on."
)
PANELS = (("same token as plain model (%)", "linear", 100, same_token), ("KL divergence (nats)", "log", 1, divergence))


def draw(curves: Sequence[Curve], names: Sequence[str], title: str, across: str) -> Figure:
    """Two panels over one ratio.

    Args:
        names: of each curve, for the legend.
        across: which ratio: "FLOPs ratio".
    """
    with styled():
        figure = new_figure(9.5, 4.6)
        panels = figure.subplots(1, 2)
        for axes, (label, scale, factor, estimate) in zip(panels, PANELS, strict=True):
            axes.set(xlabel=f"{across} (x)", ylabel=label, yscale=scale)
            for place, (curve, name) in enumerate(zip(curves, names, strict=True)):
                colour, marker = look(curve.method)
                dashed = any(other.method == curve.method for other in curves[:place])
                found = [estimate(setting) for setting in curve.settings]
                values = factor * numpy.array([[one.value, one.value - one.low, one.high - one.value] for one in found])
                alone = numpy.array(curve.whole)  # no line leads from these to others
                bars = {"elinewidth": 0.6, "capsize": 1.5, "markersize": 5, "color": colour, "marker": marker}
                for chosen, line in ((~alone, "--" if dashed else "-"), (alone, "none")):
                    style = {"linewidth": 1.2, "linestyle": line, "label": name if line != "none" else None, **bars}
                    axes.errorbar(
                        numpy.array(curve.speeds)[chosen], *values[chosen, :1].T, values[chosen, 1:].T, **style
                    )
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        n = {len(setting) for curve in curves for setting in curve.settings}
        figure.suptitle(f"{title} (n={min(n)}{'' if len(n) == 1 else f' to {max(n)}'})")
    return figure
