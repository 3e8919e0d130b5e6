"""Figure 6: one pruning layer only; the score over where it stands, one line per keep ratio."""

from __future__ import annotations

import json
from typing import Any

import pandas
from matplotlib.figure import Figure

from lazybench.pruning.schedule import layers_run
from lazybench.report.figures.style import BLACK, LINES, new_figure, styled
from lazybench.report.figures.tradeoff import quality
from lazybench.report.names import category_rows
from lazybench.report.statistics import LEAST_SAMPLES, RANGE


def one_layer_rows(summary: pandas.DataFrame, layers: dict[str, int], name: str | None = None) -> pandas.DataFrame:
    """LazyLLM's rows with a single pruning layer: model, ``depth`` (share), ``keep`` and the quality column.

    The quality is the mean over the categories, so that each counts the same.

    Args:
        layers: a model's name to its number of layers, for schedules that name a layer's index.
        name: the column that stands for quality; None: the first that was measured.
    """
    rows = category_rows(summary)
    name = name or quality(rows)[0]
    name = "score" if name == "relative_score" else name
    found: list[dict[str, object]] = []
    for (model, method, params), group in rows.groupby(["model", "method", "params"], sort=False):
        pruning = json.loads(str(params)).get("pruning", {})
        layer, depth, keep = (pruning.get(key) or [] for key in ("layers", "depths", "keep"))
        if method == "baseline":
            found.append({"model": model, "keep": 1.0, "depth": None, **_mean(group, name)})
        elif method == "lazyllm" and len(keep) == 1 and (depth or model in layers):
            of = layers.get(str(model))
            # of whole layers, where their number is known; a layer's index counts from 0
            run = layer[0] + 1 if layer else layers_run(depth[0], of) if of else depth[0]
            found.append({"model": model, "keep": keep[0], "depth": run / (of or 1), **_mean(group, name)})
    return pandas.DataFrame(found, columns=["model", "keep", "depth", "n", "low", "high", name])


def _mean(group: pandas.DataFrame, name: str) -> dict[str, object]:
    """Of one method over the categories: their mean, samples, and its 95% bounds, from those of each category.

    Categories are independent, so half-widths add as squares. Too few samples have no interval and get no bar.
    """
    value = group[name].mean()
    if (group["bounds"] == RANGE).any():
        return {"n": group["n"].sum(), "low": value, "high": value, name: value}
    below, above = (
        ((group[name] - group[f"{name}_{side}"]) ** 2).sum() ** 0.5 / len(group) for side in ("low", "high")
    )
    return {"n": group["n"].sum(), "low": value - below, "high": value + above, name: value}


def draw(summary: pandas.DataFrame, layers: dict[str, int], name: str | None = None) -> Figure:
    """A panel per model, the baseline as a horizontal line."""
    rows = one_layer_rows(summary, layers, name)
    name = rows.columns[-1]
    models = [model for model, group in rows.groupby("model", sort=False) if group["depth"].notna().any()]
    with styled():
        figure = new_figure(5.2 * max(1, len(models)), 3.4)
        for index, model in enumerate(models):
            axes = figure.add_subplot(1, len(models), index + 1)
            mine = rows[rows["model"] == model]
            depth = layers.get(str(model))
            lines = mine[mine["depth"].notna()].sort_values("depth")
            ratios = sorted(lines["keep"].unique(), reverse=True)
            for keep, (colour, marker, style) in zip(ratios, LINES, strict=False):
                line = lines[lines["keep"] == keep]
                places = [round(share * depth) for share in line["depth"]] if depth else 100 * line["depth"]
                label = f"keep {keep:.0%}"
                reach = [100 * (line[name] - line["low"]), 100 * (line["high"] - line[name])]
                look: dict[str, Any] = {
                    "color": colour,
                    "marker": marker,
                    "linestyle": style,
                    "elinewidth": 0.7,
                    "capsize": 2,
                }
                axes.errorbar(places, 100 * line[name], yerr=reach, label=label, **look)
            for value in mine[mine["depth"].isna()][name]:
                axes.axhline(100 * value, color=BLACK, linewidth=1, label="baseline")
            axes.set(
                title=f"{model!s} (n={mine['n'].max()})",
                xlabel=f"pruned after layer (of {depth})" if depth else "pruned after this share of layers (%)",
                ylabel="score (mean over categories)" if name == "score" else "same token as baseline (%)",
            )
            bars = (mine["low"] < mine["high"]).any()
            title = "bars: 95% interval" if bars else f"no bars below\n{LEAST_SAMPLES} samples"
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title=title, title_fontsize=8)
    return figure
