"""``experiment=gpu``: times, memory and launches of every method, by model and prompt length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas
from matplotlib.figure import Figure

from lazybench.report.figures.style import LINES, new_figure, styled
from lazybench.report.tables import method_title, number
from lazybench.run.record import Record

COUNTS = ("prefill_launches", "prefill_waits", "step_launches", "step_waits")
RATIOS = {"ttft_s": "TTFT", "decode_step_s": "decoding step", "generation_s": "overall"}
GIB = 2**30


def rows(records: Sequence[Sequence[Record]]) -> pandas.DataFrame:
    """One row per model, prompt length and method of the runs that counted launches: medians over all runs of it.

    ``NAME_ratio``: baseline over method, of the medians. ``error``: why a method has no times.
    """
    counted = [run for run in records if any("step_launches" in (record.details or {}) for record in run)]
    frame = pandas.DataFrame([{**asdict(record), **(record.details or {})} for run in counted for record in run])
    if frame.empty:
        return frame
    keys = ["model", "task", "method", "params"]
    values = [*RATIOS, "added_memory_bytes", "revived_tokens_per_step", "prompt_tokens", *COUNTS]
    frame = frame.reindex(columns=[*keys, *values, "error"])
    frame[values] = frame[values].apply(pandas.to_numeric)
    grouped = frame.groupby(keys, sort=False)
    found = grouped[values].median().join(grouped["error"].first()).reset_index()
    baseline = found[found["method"] == "baseline"].set_index(["model", "task"])
    for name in RATIOS:
        against = pandas.Series([baseline[name].get(key) for key in zip(found["model"], found["task"], strict=True)])
        found[f"{name}_ratio"] = pandas.to_numeric(against) / found[name]
    return found.sort_values(["model", "prompt_tokens"], kind="stable", ignore_index=True)


def table(found: pandas.DataFrame) -> pandas.DataFrame:
    """``rows`` as text with units; x: how many times as fast as the baseline."""
    shown = {
        "model": found["model"],
        "prompt": [task.rpartition("_")[2] for task in found["task"]],
        "method": [method_title(*pair) for pair in zip(found["method"], found["params"], strict=True)],
        "TTFT ms": [number(1_000 * value, 1) for value in found["ttft_s"]],
        "TTFT x": [number(value, 2) for value in found["ttft_s_ratio"]],
        "step ms": [number(1_000 * value, 2) for value in found["decode_step_s"]],
        "step x": [number(value, 2) for value in found["decode_step_s_ratio"]],
        "overall s": [number(value, 2) for value in found["generation_s"]],
        "overall x": [number(value, 2) for value in found["generation_s_ratio"]],
        "memory beside weights GiB": [number(value / GIB, 2) for value in found["added_memory_bytes"]],
        "revived a step": [number(value, 1) for value in found["revived_tokens_per_step"]],
        **{name.replace("_", " "): [number(value, 0) for value in found[name]] for name in COUNTS},
        "failed": [str(error or "")[:80] if isinstance(error, str) else "" for error in found["error"]],
    }
    return pandas.DataFrame(shown)


def draw(found: pandas.DataFrame) -> Figure:
    """A row of panels per model: TTFT, step and overall speedup over the prompt's length, a line per method."""
    models = list(dict.fromkeys(found["model"]))
    methods = list(dict.fromkeys(zip(found["method"], found["params"], strict=True)))
    with styled():
        figure = new_figure(12, 2.6 * len(models) + 0.16 * len(methods))
        panels = figure.subplots(len(models), len(RATIOS), squeeze=False)
        for model, axes_of_model in zip(models, panels, strict=True):
            for (name, title), axes in zip(RATIOS.items(), axes_of_model, strict=True):
                for index, (method, params) in enumerate(methods):
                    chosen = (found["model"] == model) & (found["method"] == method) & (found["params"] == params)
                    colour, marker, line = LINES[index % len(LINES)]
                    axes.plot(
                        found[chosen]["prompt_tokens"],
                        found[chosen][f"{name}_ratio"],
                        color=colour,
                        marker=marker,
                        linestyle=line if index < len(LINES) else (0, (1 + index // len(LINES), 2)),
                        markersize=4 + index // len(LINES),
                        label=method_title(method, params),
                    )
                axes.set(xscale="log", title=f"{model}: {title}", xlabel="prompt tokens", ylabel="speedup (x)")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return figure
