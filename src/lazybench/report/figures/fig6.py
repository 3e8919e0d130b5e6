"""Figure 6: one pruning layer only; the score over where it stands, one line per keep ratio."""

from __future__ import annotations

import json
from typing import Any

import pandas
from matplotlib.figure import Figure

from lazybench.pruning.schedule import layers_run
from lazybench.report.figures.style import BLACK, LINES, new_figure, styled
from lazybench.report.figures.tradeoff import qualities
from lazybench.report.names import category_rows
from lazybench.report.statistics import RANGE

COLUMNS = ["model", "keep", "layer", "n", "low", "high", "value"]


def one_layer_rows(summary: pandas.DataFrame, layers: dict[str, int], name: str | None = None) -> pandas.DataFrame:
    """LazyLLM's rows with a single pruning layer: its 0-based index, keep ratio and quality; the baseline's without.

    The quality is the mean over the categories, so that each counts the same.

    Args:
        layers: a model's name to its number of layers, for schedules by depth; unknown: a share of the depth.
        name: the column that stands for quality; None: the first that was measured.
    """
    rows = category_rows(summary)
    name = name or next(iter(qualities(rows)), "fidelity_top1")
    name = "score" if name == "relative_score" else name
    found: list[dict[str, object]] = []
    for (model, method, params), group in rows.groupby(["model", "method", "params"], sort=False):
        pruning = json.loads(str(params)).get("pruning") or {}
        layer, depth, keep = (pruning.get(key) or [] for key in ("layers", "depths", "keep"))
        about: dict[str, object] = {"model": model, **_mean(group, name)}
        if method == "baseline":
            found.append({**about, "keep": 1.0, "layer": None})
        elif method == "lazyllm" and len(keep) == 1 and (layer or depth):
            of = layers.get(str(model))
            place = layer[0] if layer else layers_run(depth[0], of) - 1 if of else depth[0]
            found.append({**about, "keep": keep[0], "layer": place})
    return pandas.DataFrame(found, columns=COLUMNS)


def _mean(group: pandas.DataFrame, name: str) -> dict[str, object]:
    """Of one method over the categories: their mean, samples, and its 95% bounds, from those of each category.

    Categories are independent, so half-widths add as squares. Too few samples have no interval and get no bar.
    """
    value = group[name].mean()
    told = {"n": group["n"].sum(), "value": value}
    if (group["bounds"] == RANGE).any():
        return {**told, "low": value, "high": value}
    below, above = (
        ((group[name] - group[f"{name}_{side}"]) ** 2).sum() ** 0.5 / len(group) for side in ("low", "high")
    )
    return {**told, "low": value - below, "high": value + above}


def draw(summary: pandas.DataFrame, layers: dict[str, int], name: str) -> Figure:
    """A panel per model, the baseline as a horizontal line."""
    rows = one_layer_rows(summary, layers, name)
    models = [model for model, group in rows.groupby("model", sort=False) if group["layer"].notna().any()]
    with styled():
        figure = new_figure(5.2 * max(1, len(models)), 3.4)
        for index, model in enumerate(models):
            axes = figure.add_subplot(1, len(models), index + 1)
            mine = rows[rows["model"] == model]
            lines = mine[mine["layer"].notna()].sort_values("layer")
            ratios = sorted(lines["keep"].unique(), reverse=True)
            for keep, (colour, marker, style) in zip(ratios, LINES, strict=False):
                line = lines[lines["keep"] == keep]
                reach = [100 * (line["value"] - line["low"]), 100 * (line["high"] - line["value"])]
                look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": style, "capsize": 2}
                axes.errorbar(
                    line["layer"], 100 * line["value"], reach, label=f"keep {keep:.0%}", elinewidth=0.7, **look
                )
            for value in mine[mine["layer"].isna()]["value"]:
                axes.axhline(100 * value, color=BLACK, linewidth=1, label="baseline")
            axes.set(
                title=f"{model!s} (n={mine['n'].max()})",
                xlabel="pruned after layer (from 0)" if model in layers else "pruned after this share of layers",
                ylabel="same token as baseline (%)" if name == "fidelity_top1" else "score (mean over categories)",
            )
            bars = "bars: 95% interval" if (mine["low"] < mine["high"]).any() else None
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title=bars, title_fontsize=8)
    return figure
