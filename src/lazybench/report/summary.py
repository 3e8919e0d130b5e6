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
from lazybench.run.record import Record

ROW = ["model", "setting", "task", "category", "method", "params"]
SAMPLE = ["model", "setting", "task", "seed", "sample_id"]
TIMES = ["ttft_s", "generation_s", "decode_step_s", "overhead_s"]
PEAKS = ["peak_memory_bytes", "added_memory_bytes"]
NUMBERS = [
    *("score", "fidelity_top1", "fidelity_kl", "fidelity_first_top1", "fidelity_first_kl"),
    *("prompt_tokens", "output_tokens", "prompt_tokens_computed", "flops_ratio", "truncated_from"),
    *("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
]
REVIVED = "revived_tokens_per_step"  # of a record's details
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
    *("fidelity_kl", "prompt_tokens_computed", "overhead_s", "prompt_tokens", "output_tokens", REVIVED),
    *("added_memory_bytes", "kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
)
COUNTS = {"n": "prompt_tokens", "n_paired": "baseline_prompt_tokens", "truncated": "truncated_from"}


def records_frame(
    runs: Sequence[Sequence[Record]],
    settings: Sequence[Mapping[str, str]] | None = None,
    seeds: Sequence[int] | None = None,
) -> pandas.DataFrame:
    """Every record of runs, the oldest first; ``failed`` says which have an error.

    Args:
        settings: for each run and category what tells its rows from others; None: nothing does.
        seeds: of each run; None: all the same.
    """
    rows = [
        (
            *(record.model, settings[run].get(record.category, "") if settings else "", record.task, record.category),
            *(record.method, record.setting, run, seeds[run] if seeds else 0, record.sample_id),
            *(record.error is not None, *(getattr(record, name) for name in VALUES)),
            (record.details or {}).get(REVIVED),
        )
        for run, records in enumerate(runs)
        for record in records
    ]
    frame = pandas.DataFrame(rows, columns=[*ROW, "run", "seed", "sample_id", "failed", *VALUES, REVIVED])
    return frame.astype({"failed": bool, **dict.fromkeys([*VALUES, REVIVED], float)})


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


def summarise(records: pandas.DataFrame, samples: pandas.DataFrame | None = None) -> pandas.DataFrame:
    """One row per task, method and its settings, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight. Scores and
    shares are 0..1, times seconds. ``NAME_low`` and ``NAME_high``: the 95% interval, from ten samples on; see
    ``report/statistics.py``.

    Columns (beside those of ``RATIOS``, the medians of paired ratios): ``efficiency`` TTFT speedup over FLOPs ratio;
    ``kl`` the geometric mean over samples; ``generation_speedup`` for as many decoding steps as the baseline made;
    ``truncated`` samples that lost their middle; ``failed`` records with an error. Columns of scores are left out when
    no record has a score.

    Args:
        records: from ``records_frame``.
        samples: what ``by_sample`` makes of them, where it is at hand.
    """
    if records.empty:
        return pandas.DataFrame()
    rows = by_sample(records) if samples is None else samples
    columns = {str(name): rows[name].to_numpy() for name in rows if rows[name].dtype == float}
    columns["task_number"] = rows["task"].factorize()[0]
    of_row = rows.groupby(ROW).indices
    failed: dict[Any, int] = records.groupby(ROW, sort=False)["failed"].sum().to_dict()
    tasks: dict[Any, int] = records.groupby(["model", "setting", "category"])["task"].nunique().to_dict()
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}  # level and a row's names to the rows put together
    for key in failed:
        model, setting, _, category, method, params = key
        groups["task", *key] = [key]
        if tasks[model, setting, category] > 1:
            groups.setdefault(("category", model, setting, "", category, method, params), []).append(key)
    found = []
    for names, keys in groups.items():
        places = numpy.concatenate([of_row.get(key, numpy.zeros(0, dtype=int)) for key in keys])
        numbers = _row({name: column[places] for name, column in columns.items()}, is_baseline=names[-2] == "baseline")
        lost = sum(int(failed[key]) for key in keys)
        found.append({**dict(zip(["level", *ROW], names, strict=True)), **numbers, "failed": lost})
    found.sort(key=_order)
    summary = pandas.DataFrame(found)
    return summary.drop(columns=summary.filter(regex="score").columns) if summary["score"].isna().all() else summary


def category_rows(summary: pandas.DataFrame) -> pandas.DataFrame:
    """One row per category, method and its settings: the category's own, or its only task's."""
    key = ["model", "setting", "category"]
    whole = summary[summary["level"] == "category"]
    covered = pandas.MultiIndex.from_frame(summary[key]).isin(pandas.MultiIndex.from_frame(whole[key]))
    return summary[(summary["level"] == "category") | ~covered]


def with_setting(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The same rows, each setting a model of its own: for figures and tables that stand for models."""
    return rows.assign(model=(rows["model"] + " " + rows["setting"]).str.strip(), setting="") if len(rows) else rows


def timed(rows: pandas.DataFrame) -> bool:
    """Whether any of a summary's rows has a time, relative to the baseline's."""
    return "ttft_speedup" in rows and bool(rows["ttft_speedup"].notna().any())


def natural(text: str) -> tuple[tuple[float, str], ...]:
    """Sort key of a text with numbers in it: ``length=900`` before ``length=1500``."""
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", text)
    return tuple((float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts)


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
    """The paper's categories first, a category's row after its tasks; methods stay in the order of their records."""
    papers, category = list(CATEGORY_TITLES), str(row["category"])
    place = papers.index(category) if category in papers else len(papers)
    return row["model"], place, category, row["level"] == "category", row["task"], natural(str(row["setting"]))
