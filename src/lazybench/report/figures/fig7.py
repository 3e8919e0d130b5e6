"""Figure 7: cumulative share of the prompt's tokens computed, per stage, over the generation steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazybench.report.figures.fig6 import schedule_of
from lazybench.report.figures.style import BLACK, LINES, styled
from lazybench.report.text import settings_label
from lazybench.run.record import Record

PANELS = 6  # a sweep has dozens: the first few, those with most stages
LINES_SHOWN = 6  # of a schedule with many stages: the first, the last, and others evenly between


def mean_by_step(records: Sequence[Record]) -> NDArray[numpy.float64]:
    """The mean over records of ``prompt_tokens_computed_by_step``; one that ended keeps its last shares.

    Returns:
        (steps, stages) shares; step 0 is the prefill.
    """
    traces = [numpy.asarray(record.prompt_tokens_computed_by_step, dtype=float) for record in records]
    steps = max(len(trace) for trace in traces)
    return numpy.mean([numpy.pad(trace, ((0, steps - len(trace)), (0, 0)), mode="edge") for trace in traces], axis=0)


def stage_names(params: str, stages: int, layers: int | None) -> list[str]:
    """``["layers 0-8", "layers 9-18", ...]`` where the depth is known, else stage numbers.

    Args:
        params: LazyLLM's, as a record's ``setting`` has them.
        layers: of the model.
    """
    schedule = schedule_of(params)
    runs = schedule.stages(layers) if schedule and layers else ()
    if len(runs) == stages:
        return [f"layers {run.start}-{run.stop - 1}" for run in runs]
    return [f"stage {index}" for index in range(stages)]


@styled()
def draw(labelled: Sequence[tuple[str, Record]], layers: dict[str, int]) -> Figure:
    """A panel per model and LazyLLM schedule that was traced; the baseline computes everything in step 0.

    Args:
        labelled: each record with the name of its model and settings.
        layers: a model's name to its number of layers.
    """
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for model, record in labelled:
        stages = {len(shares) for shares in record.prompt_tokens_computed_by_step}
        if record.method == "lazyllm" and record.error is None and len(stages) == 1 and (count := max(stages)) > 1:
            groups.setdefault((model, record.setting, count), []).append(record)
    panels = sorted(groups.items(), key=lambda group: -group[0][2])[:PANELS]
    columns = min(3, max(1, len(panels)))
    height = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(5 * columns, 3.3 * height))
    for index, ((model, params, _), group) in enumerate(panels):
        shares = mean_by_step(group)
        axes = figure.add_subplot(height, columns, index + 1)
        axes.axhline(100, color=BLACK, linewidth=1, label="baseline")
        names = stage_names(params, shares.shape[1], layers.get(model))
        shown = numpy.unique(numpy.linspace(0, len(names) - 1, min(len(names), LINES_SHOWN)).round().astype(int))
        for (colour, marker, line), stage in zip(LINES, shown, strict=False):
            look = {"color": colour, "marker": marker, "linestyle": line, "label": names[stage], "markersize": 4}
            axes.plot(100 * shares[:, stage], markevery=max(1, len(shares) // 8), **look)
        axes.set_title(f"{model}\n{settings_label('lazyllm', params)} (n={len(group)})")
        axes.set(xlabel="generation step (0: prefill)", ylabel="prompt tokens computed (%)", ylim=(0, 105))
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
