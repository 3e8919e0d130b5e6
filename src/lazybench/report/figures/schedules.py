"""Figures 6 and 7: what LazyLLM's schedule does to the score, and to the prompt tokens that are computed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy
import pandas
from matplotlib.figure import Figure

from lazybench.errors import UserError
from lazybench.methods import build
from lazybench.pruning.schedule import PruningSchedule
from lazybench.report.figures.style import BLACK, LINES, styled
from lazybench.report.figures.tradeoff import quality_of
from lazybench.report.results import Results
from lazybench.report.summary import category_rows
from lazybench.report.text import settings_label
from lazybench.run.record import Record

BESIDE: Any = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend right of its panel


def schedule_of(params: str) -> PruningSchedule | None:
    """What a record says of LazyLLM's pruning; None where this version can't read it, as of a stranger's file."""
    try:
        return build("lazyllm", json.loads(params)).pruning  # type: ignore[attr-defined]
    except UserError:
        return None


def one_layer_rows(summary: pandas.DataFrame, layers: Mapping[str, int], name: str) -> pandas.DataFrame:
    """LazyLLM's rows with a single pruning layer: its 0-based index, keep ratio and quality; the baseline's without.

    The quality is the mean over the categories, so that each counts the same; its interval too, categories being
    independent: half-widths add as squares.

    Args:
        layers: a model's name to its number of layers, for schedules by depth; unknown: a share of the depth.
        name: the column that stands for quality.
    """
    found = []
    for (model, method, params), group in category_rows(summary).groupby(["model", "method", "params"], sort=False):
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
def figure6(results: Results) -> Figure | None:
    """Quality over where a single pruning layer stands, a panel per model; the baseline as a horizontal line."""
    summary = results.summary
    if (quality := quality_of(summary)) is None:
        return None
    name = quality.removeprefix("relative_")
    rows = one_layer_rows(summary, results.layers, name)
    models = [str(model) for model in rows[rows["layer"].notna()]["model"].unique()]
    if not models:
        return None
    figure = Figure(figsize=(5.2 * len(models), 3.4))
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False).flat, models, strict=True):
        mine = rows[rows["model"] == model]
        lines = mine[mine["layer"].notna()].sort_values("layer")
        for value in mine[mine["layer"].isna()]["value"]:
            axes.axhline(100 * value, color=BLACK, linewidth=1.2, linestyle=(0, (1, 1)), label="baseline", zorder=3)
        for keep, (colour, marker, style) in zip(sorted(lines["keep"].unique(), reverse=True), LINES, strict=False):
            line = lines[lines["keep"] == keep]
            reach = 100 * line[["low", "high"]].to_numpy().T if line["low"].notna().any() else None
            look = {"color": colour, "marker": marker, "linestyle": style, "elinewidth": 0.7, "capsize": 2}
            drawn = axes.errorbar(line["layer"], 100 * line["value"], reach, **look)
            drawn[0].set_label(f"keep {keep:.0%}")  # the line alone: the legend has no bars where none are drawn
        axes.set_title(f"{model} (n={mine['n'].max()}{', 95% intervals' if mine['low'].notna().any() else ''})")
        axes.set_xlabel("pruned after " + ("layer (from 0)" if model in results.layers else "this share of layers"))
        axes.set_ylabel("score (mean over categories)" if name == "score" else "same token as baseline (%)")
        axes.legend(fontsize=8, **BESIDE)
    return figure


def stage_names(params: str, stages: int, layers: int | None) -> list[str]:
    """``["layers 0-8", "layers 9-18", ...]`` where the depth is known, else stage numbers."""
    schedule = schedule_of(params)
    runs = schedule.stages(layers) if schedule and layers else ()
    if len(runs) == stages:
        return [f"layers {run.start}-{run.stop - 1}" for run in runs]
    return [f"stage {index}" for index in range(stages)]


@styled()
def figure7(results: Results) -> Figure | None:
    """A panel per model and LazyLLM schedule that was traced; the baseline computes everything in step 0."""
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for model, record in zip(results.records["model"], results.records["record"], strict=True):
        stages = {len(shares) for shares in record.prompt_tokens_computed_by_step}
        if record.method == "lazyllm" and record.error is None and len(stages) == 1 and (count := max(stages)) > 1:
            groups.setdefault((model, record.setting, count), []).append(record)
    if not groups:
        return None
    columns, height = min(3, len(groups)), math.ceil(len(groups) / 3)
    figure = Figure(figsize=(5 * columns, 3.3 * height))
    for place, ((model, params, count), group) in enumerate(groups.items(), 1):
        traces = [numpy.asarray(record.prompt_tokens_computed_by_step, dtype=float) for record in group]
        steps = max(map(len, traces))  # one that ended keeps its last shares
        padded = [numpy.pad(trace, ((0, steps - len(trace)), (0, 0)), mode="edge") for trace in traces]
        shares = numpy.mean(padded, axis=0)  # (steps, stages)
        axes = figure.add_subplot(height, columns, place)
        axes.axhline(100, color=BLACK, linewidth=1, label="baseline")
        # of many stages the first, the last, and others evenly between
        shown = numpy.unique(numpy.linspace(0, count - 1, min(count, len(LINES))).round().astype(int))
        names = stage_names(params, count, results.layers.get(model))
        for (colour, marker, line), stage in zip(LINES, shown, strict=False):
            look = {"color": colour, "marker": marker, "linestyle": line, "label": names[stage], "markersize": 4}
            axes.plot(100 * shares[:, stage], markevery=max(1, len(shares) // 8), **look)
        axes.set_title(f"{model}\n{settings_label('lazyllm', params)} (n={len(group)})")
        axes.set(xlabel="generation step (0: prefill)", ylabel="prompt tokens computed (%)", ylim=(0, 105))
        axes.legend(fontsize=7, **BESIDE)
    return figure
