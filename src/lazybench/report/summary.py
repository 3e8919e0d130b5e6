"""What the records say: scores, fidelity and speedups of each row, each with its interval."""

from __future__ import annotations

import re
from typing import Any

import numpy
import pandas

from lazybench.report import statistics
from lazybench.report.frame import REVIVED, ROW, by_sample
from lazybench.report.paper import CATEGORY_TITLES

# name -> numerator and denominator of a ratio that is taken sample by sample: its median
RATIOS = {
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup": ("baseline_generation_s", "same_steps_s"),
    "decode_step_ratio": ("decode_step_s", "baseline_decode_step_s"),
    "memory_ratio": ("peak_memory_bytes", "baseline_peak_memory_bytes"),
    "added_memory_ratio": ("added_memory_bytes", "baseline_added_memory_bytes"),
}
MEANS = (
    *("fidelity_kl", "prompt_tokens_computed", "overhead_s", "prompt_tokens", "output_tokens", REVIVED),
    *("added_memory_bytes", "kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
)
COUNTS = {"n": "prompt_tokens", "n_paired": "baseline_prompt_tokens", "truncated": "truncated_from"}


def summarise(records: pandas.DataFrame, samples: pandas.DataFrame | None = None) -> pandas.DataFrame:
    """One row per task, method and its settings, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight. Scores and
    shares are 0..1, times seconds. ``NAME_low`` and ``NAME_high``: the 95% interval, from ten samples on; see
    ``report/statistics.py``.

    Columns (beside those of ``RATIOS``, the medians of paired ratios): ``efficiency`` TTFT speedup over FLOPs ratio;
    ``generation_speedup`` for as many decoding steps as the baseline made; ``truncated`` samples that lost their
    middle; ``failed`` records with an error. Columns of scores are left out when no record has a score.

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
    with numpy.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: tasks_of(rows[above] / rows[below]) for name, (above, below) in RATIOS.items()}
    estimates = {
        "score": statistics.mean_score(tasks_of(rows["score"])),
        "relative_score": statistics.relative_score(plain if is_baseline else score, plain),
        "fidelity_top1": statistics.mean_score(tasks_of(rows["fidelity_top1"])),
        "fidelity_kl_median": statistics.median(tasks_of(rows["fidelity_kl"])),
        **{name: statistics.median_ratio(ratio) for name, ratio in ratios.items()},
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
