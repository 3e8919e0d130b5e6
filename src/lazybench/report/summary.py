"""From records to what they say: a row a sample, the baseline's values of the same run beside it; then a row for each
task, method and its settings, every number with its interval.

Columns that name a row (``ROW``), a record's times and numbers, ``run`` (its number, the oldest first) and ``seed``;
``params`` is a record's ``setting``: JSON as one text. ``baseline_NAME`` is the baseline's value on that sample.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas

from lazybench.report import statistics
from lazybench.report.paper import CATEGORY_TITLES
from lazybench.run.reading import Run

ROW = ["model", "task", "category", "method", "params"]
SAMPLE = ["model", "task", "seed", "sample_id"]
TIMES = ["ttft_s", "generation_s", "decode_step_s", "overhead_s"]
PEAKS = ["peak_memory_bytes", "added_memory_bytes"]
NUMBERS = [
    *("score", "fidelity_top1", "fidelity_kl", "fidelity_first_top1", "fidelity_first_kl"),
    *("prompt_tokens", "output_tokens", "prompt_tokens_computed", "flops_ratio", "truncated_from"),
    *("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
]
VALUES = [*TIMES, *PEAKS, *NUMBERS]
RATIOS = {  # name -> numerator and denominator of a ratio that is taken sample by sample
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup": ("baseline_generation_s", "same_steps_s"),
    "decode_step_ratio": ("decode_step_s", "baseline_decode_step_s"),
    "memory_ratio": ("peak_memory_bytes", "baseline_peak_memory_bytes"),
    "added_memory_ratio": ("added_memory_bytes", "baseline_added_memory_bytes"),
    "kv_ratio": ("kv_bytes_end", "baseline_kv_bytes_end"),
    "aux_ratio": ("aux_bytes_end", "baseline_kv_bytes_end"),
}
MEANS = (
    *("fidelity_kl", "prompt_tokens_computed", "overhead_s", "prompt_tokens", "output_tokens"),
    *("added_memory_bytes", "kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
)
COUNTS = {"n": "prompt_tokens", "n_paired": "baseline_prompt_tokens", "truncated": "truncated_from"}


def records_frame(runs: Sequence[Run], told: Sequence[Mapping[str, str]]) -> pandas.DataFrame:
    """Every record of runs, the oldest first; ``failed`` says which have an error, ``record`` is the record itself.

    Args:
        told: for each run and category what tells its rows from others; stands behind the model's name.
    """
    rows = [
        (
            *(f"{record.model} {told[place][record.category]}".strip(), record.task, record.category),
            *(record.method, record.setting, place, run.config.get("seed") or 0, record.sample_id),
            *(record.error is not None, record, *(getattr(record, name) for name in VALUES)),
        )
        for place, run in enumerate(runs)
        for record in run.records
    ]
    frame = pandas.DataFrame(rows, columns=[*ROW, "run", "seed", "sample_id", "failed", "record", *VALUES])
    return frame.astype({"failed": bool, **dict.fromkeys(VALUES, float)})


def by_sample(records: pandas.DataFrame) -> pandas.DataFrame:
    """A row for each sample of the records that did not fail, ``baseline_*`` beside its values.

    Of repeats, and of several seeds, the median of times and the mean of everything else. Times and peaks of memory are
    paired within a run alone. A run without a baseline of its own takes what no machine decides, scores and bytes of
    the KV cache, from the newest run of its rows that has one. Of a sample that several runs measured the newest
    counts. ``same_steps_s`` is the generation time for as many decoding steps as the baseline made; ``RATIOS`` follow.
    """
    rows = _together(records[~records["failed"]], ["run", "seed"])
    baseline = rows[rows["method"] == "baseline"]
    columns = {name: f"baseline_{name}" for name in VALUES}
    own = baseline[["run", *SAMPLE, *VALUES]].rename(columns=columns)
    found = rows.merge(own, on=["run", *SAMPLE], how="left")
    lacking = found["baseline_prompt_tokens"].isna()
    if lacking.any():
        known = baseline.groupby(SAMPLE, sort=False)[NUMBERS].last().rename(columns=columns).reset_index()
        others = found.loc[lacking, SAMPLE].merge(known, on=SAMPLE, how="left")
        names = [columns[name] for name in NUMBERS]
        found.loc[lacking, names] = others[names].to_numpy()
    steps = (found["baseline_output_tokens"] - 1).clip(lower=0)
    found["same_steps_s"] = found["ttft_s"] + (steps * found["decode_step_s"]).where(steps > 0, steps)
    rows = _together(found[found["run"] == _newest(found)])
    return rows.assign(**{name: rows[above] / rows[below] for name, (above, below) in RATIOS.items()})


def superseded(records: pandas.DataFrame) -> dict[tuple[int, int], int]:
    """How many records of a run a newer one holds too, by the numbers of the two; baselines aside, which pair."""
    rows = records[~records["failed"]]
    rows = rows[rows["method"] != "baseline"].assign(newest=_newest(rows))
    counts = rows[rows["run"] != rows["newest"]].groupby(["run", "newest"]).size()
    return dict(counts.items())  # type: ignore[arg-type]


def _together(rows: pandas.DataFrame, more: Sequence[str] = ()) -> pandas.DataFrame:
    """One row for each sample, method and its settings, and for each of ``more``."""
    keys = [*ROW, *more, "sample_id"]
    if not rows.duplicated(keys).any():
        return rows.reset_index(drop=True)
    values = [name for name in rows if rows[name].dtype == float]
    how = {
        name: "median" if str(name).removeprefix("baseline_") in (*TIMES, "same_steps_s") else "mean" for name in values
    }
    return rows.groupby(keys, sort=False).agg(how).reset_index()


def _newest(rows: pandas.DataFrame) -> pandas.Series:
    return rows.groupby([*ROW, "seed", "sample_id"], sort=False)["run"].transform("max")


def summarise(records: pandas.DataFrame, rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per task, method and its settings, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight. Scores and
    shares are 0..1, times seconds; ``NAME_low`` and ``NAME_high`` are the 95% interval. docs/measuring.md lists the
    columns; those of scores are left out when no record has one.

    Args:
        records: from ``records_frame``.
        rows: what ``by_sample`` makes of them.
    """
    if records.empty:
        return pandas.DataFrame()
    columns = {str(name): rows[name].to_numpy() for name in rows if rows[name].dtype == float}
    columns["task_number"] = rows["task"].factorize()[0]
    of_category = [name for name in ROW if name != "task"]
    several = records.groupby(["model", "category"])["task"].transform("nunique") > 1
    found = []
    for level, of, keys in (("task", records, ROW), ("category", records[several], of_category)):
        places: dict[Any, Any] = rows.groupby(keys).indices  # none where every record failed
        for names, failed in of.groupby(keys, sort=False)["failed"].sum().items():
            row = {"level": level, **dict.fromkeys(ROW, ""), **dict(zip(keys, names, strict=True))}  # type: ignore[call-overload]
            of_row = {name: column[places.get(names, [])] for name, column in columns.items()}
            found.append({**row, **_row(of_row, row["method"] == "baseline"), "failed": failed})
    found.sort(key=_order)
    summary = pandas.DataFrame(found)
    return summary.drop(columns=summary.filter(regex="score").columns) if summary["score"].isna().all() else summary


def category_rows(summary: pandas.DataFrame) -> pandas.DataFrame:
    """One row per category, method and its settings: the category's own, or its only task's."""
    key = ["model", "category"]
    whole = summary[summary["level"] == "category"]
    covered = pandas.MultiIndex.from_frame(summary[key]).isin(pandas.MultiIndex.from_frame(whole[key]))
    return summary[(summary["level"] == "category") | ~covered]


def _row(rows: dict[str, numpy.ndarray], is_baseline: bool) -> dict[str, object]:
    """All numbers of one row, from its samples; where every record failed, missing ones."""

    def tasks_of(values: numpy.ndarray) -> list[statistics.Array]:
        return statistics.by_task(values, rows["task_number"])

    row: dict[str, object] = {name: int((~numpy.isnan(rows[of])).sum()) for name, of in COUNTS.items()}
    unpaired = numpy.isnan(rows["score"] + rows["baseline_score"])
    score, plain = (tasks_of(numpy.where(unpaired, numpy.nan, rows[name])) for name in ("score", "baseline_score"))
    estimates = {
        "score": statistics.mean_score(tasks_of(rows["score"])),
        "relative_score": statistics.relative_score(plain if is_baseline else score, plain),
        "fidelity_top1": statistics.mean_score(tasks_of(rows["fidelity_top1"])),
        "kl": statistics.divergence(rows["fidelity_kl"]),
        **{name: statistics.median_ratio(tasks_of(rows[name])) for name in RATIOS},
    }
    for name, one in estimates.items():
        row |= one.columns(name)
    row |= {name: statistics.mean(tasks_of(rows[name])) for name in MEANS}
    row["flops_ratio"] = statistics.median(tasks_of(rows["flops_ratio"])).value
    row["efficiency"] = estimates["ttft_speedup"].value / row["flops_ratio"]  # type: ignore[operator]
    for name in ("ttft", "generation", "decode_step"):
        known = rows[f"{name}_s"][~numpy.isnan(rows[f"{name}_s"])]
        row[f"{name}_median_s"] = float(numpy.median(known)) if len(known) else numpy.nan
    return row


def _order(row: dict[str, object]) -> tuple[object, ...]:
    """``length=900`` of a model before ``length=1500``; the paper's categories first, a category's row after its tasks;
    methods stay in the order of their records.
    """
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", str(row["model"]))
    model = [(float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts]
    papers, category = list(CATEGORY_TITLES), str(row["category"])
    place = papers.index(category) if category in papers else len(papers)
    return model, place, category, row["level"] == "category", row["task"]
