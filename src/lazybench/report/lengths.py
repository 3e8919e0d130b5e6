"""Does the loss grow with the prompt? The same samples at several lengths, each compared with itself.

A sample is paired over lengths by its id: LongBench's, cut to several ``model.prompt_limit_tokens``, or those of a task
whose ``length`` is a parameter. Its slope is that of log KL on the logarithm of its prompt's tokens.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
import pandas

from lazybench.report import statistics
from lazybench.report.curves import SAMPLE
from lazybench.report.grouping import labels, settings_of
from lazybench.report.names import method_title
from lazybench.report.results import Results
from lazybench.report.statistics import KL_FLOOR, Array
from lazybench.report.tables import number, with_bounds

LENGTHS = ("model.prompt_limit_tokens", "task.parameters.length")
CAPTION = (
    "KL divergence (nats, geometric mean) by prompt length, of the samples that were measured at every length. Per "
    "doubling: by which factor a sample's own KL grows when its prompt is twice as long; below 10 samples the bounds "
    "are the lowest and highest"
)


def table(results: Results) -> pandas.DataFrame:
    """One row for each model with its settings, task, method and variant with more than one length; else empty.

    Runs that differ in more than the length are not set side by side: what else differs is named with the model.
    """
    others = [{k: v for k, v in settings_of(run).items() if k not in LENGTHS} for run in results.runs]
    apart = [""] * len(others)
    for model in {run.model for run in results.runs}:
        places = [place for place, run in enumerate(results.runs) if run.model == model]
        for place, label in zip(places, labels([others[place] for place in places])[0], strict=True):
            apart[place] = label
    records = [
        {
            "model": f"{run.model} {apart[place]}".strip(),
            "tasks": run.config["task"].get("name", ""),
            "task": record.task,
            "method": record.method,
            "variant": record.variant,
            "sample_id": record.sample_id,
            "tokens": record.prompt_tokens,
            "run": place,
            "kl": math.log(max(record.fidelity_kl, KL_FLOOR)),
        }
        for place, run in enumerate(results.runs)
        for record in run.records
        if record.error is None and record.fidelity_kl is not None and record.method != "baseline"
    ]
    rows = []
    for key, found in pandas.DataFrame(records).groupby(["model", "tasks", "method", "variant"]) if records else ():
        means = found.groupby([*SAMPLE, "run"])[["tokens", "kl"]].mean().reset_index()
        tokens, kl = (means.pivot_table(name, SAMPLE, "run").dropna() for name in ("tokens", "kl"))
        runs = _of_each_length(tokens) if len(tokens) else []
        if len(runs) < 2:
            continue
        model, tasks, method, variant = map(str, key)
        rows.append(
            {
                "model": model,
                "task": tasks,
                "method": method_title(method, variant),
                **_cells(tokens[runs].to_numpy(), kl[runs].to_numpy()),
            }
        )
    table = pandas.DataFrame(rows).fillna("")
    return table[sorted(table, key=lambda column: column == "per doubling")]  # behind every length


def _of_each_length(tokens: pandas.DataFrame) -> list[Any]:
    """The runs by rising median length, one of each length."""
    medians = tokens.median().sort_values()
    keep = [place for place, run in enumerate(medians.index) if not place or medians.iloc[place - 1] < medians[run]]
    return [medians.index[place] for place in keep]


def _cells(tokens: Array, kl: Array) -> dict[str, str]:
    """Of (samples, lengths) each; ``kl`` by its logarithm."""
    doublings = numpy.log2(tokens)
    doublings = doublings - doublings.mean(axis=1, keepdims=True)
    grows = numpy.ptp(doublings, axis=1) > 0.5  # a short document is about as long at every limit
    slopes = (doublings * kl)[grows].sum(axis=1) / (doublings**2)[grows].sum(axis=1)
    factor = statistics.compare_divergences(numpy.exp(slopes), numpy.ones(len(slopes))).estimate
    means = numpy.exp(kl.mean(axis=0))
    return {
        "n": str(len(tokens)),
        **{f"{int(numpy.median(tokens[:, place]))} tokens": number(mean, 3) for place, mean in enumerate(means)},
        "per doubling": with_bounds(factor, 2),
    }
