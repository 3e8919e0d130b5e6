"""Figure 6: one pruning layer only; the score over where it stands, one line per keep ratio."""

from __future__ import annotations

import json
import math

import pandas
from matplotlib.figure import Figure

from lazybench.errors import UserError
from lazybench.methods import build
from lazybench.pruning.schedule import PruningSchedule
from lazybench.report.figures.style import BLACK, LINES, styled
from lazybench.report.summary import category_rows


def schedule_of(params: str) -> PruningSchedule | None:
    """What a record says of LazyLLM's pruning; None where this version can't read it, as of a stranger's file."""
    try:
        return build("lazyllm", json.loads(params)).pruning  # type: ignore[attr-defined]
    except UserError:
        return None


def one_layer_rows(summary: pandas.DataFrame, layers: dict[str, int], name: str) -> pandas.DataFrame:
    """LazyLLM's rows with a single pruning layer: its 0-based index, keep ratio and quality; the baseline's without.

    The quality is the mean over the categories, so that each counts the same; its interval too, categories being
    independent: half-widths add as squares.

    Args:
        layers: a model's name to its number of layers, for schedules by depth; unknown: a share of the depth.
        name: the column that stands for quality.
    """
    found = []
    rows = category_rows(summary) if len(summary) else pandas.DataFrame(columns=["model", "method", "params"])
    for (model, method, params), group in rows.groupby(["model", "method", "params"], sort=False):
        keep, place = 1.0, math.nan
        if method == "lazyllm" and (schedule := schedule_of(str(params))) and len(schedule.keep) == 1:
            known = schedule.build(layers[str(model)]) if model in layers else schedule
            (keep,), (place,) = schedule.keep, known.layers or known.depths or ()
        elif method != "baseline":
            continue
        reach = {
            side: ((group[name] - group[f"{name}_{side}"]) ** 2).sum(skipna=False) ** 0.5 / len(group)
            for side in ("low", "high")
        }
        quality = {"value": group[name].mean(), "n": group["n"].sum(), **reach}
        found.append({"model": model, "keep": keep, "layer": place, **quality})
    return pandas.DataFrame(found, columns=["model", "keep", "layer", "value", "n", "low", "high"])


@styled()
def draw(rows: pandas.DataFrame, layers: dict[str, int], name: str) -> Figure:
    """A panel per model, the baseline as a horizontal line.

    Args:
        rows: from ``one_layer_rows``.
        name: "score" or "fidelity_top1".
    """
    models = [str(model) for model, group in rows.groupby("model", sort=False) if group["layer"].notna().any()]
    figure = Figure(figsize=(5.2 * max(1, len(models)), 3.4))
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False).flat, models, strict=True):
        mine = rows[rows["model"] == model]
        lines = mine[mine["layer"].notna()].sort_values("layer")
        ratios = sorted(lines["keep"].unique(), reverse=True)
        for value in mine[mine["layer"].isna()]["value"]:
            axes.axhline(100 * value, color=BLACK, linewidth=1.2, linestyle=(0, (1, 1)), label="baseline", zorder=3)
        for keep, (colour, marker, style) in zip(ratios, LINES, strict=False):
            line = lines[lines["keep"] == keep]
            reach = 100 * line[["low", "high"]].to_numpy().T if line["low"].notna().any() else None
            look = {"color": colour, "marker": marker, "linestyle": style, "elinewidth": 0.7, "capsize": 2}
            drawn = axes.errorbar(line["layer"], 100 * line["value"], reach, **look)
            drawn[0].set_label(f"keep {keep:.0%}")  # the line alone: the legend has no bars where none are drawn
        axes.set_title(f"{model} (n={mine['n'].max()}{', 95% intervals' if mine['low'].notna().any() else ''})")
        axes.set_xlabel("pruned after layer (from 0)" if model in layers else "pruned after this share of layers")
        axes.set_ylabel("score (mean over categories)" if name == "score" else "same token as baseline (%)")
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
