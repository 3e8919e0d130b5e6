"""What the records say: scores, fidelity and speedups of each row, each with its interval."""

from __future__ import annotations

from functools import partial

import numpy
import pandas

from lazybench.report import statistics
from lazybench.report.frame import LAUNCHES, ROW, natural, paired
from lazybench.report.paper import CATEGORY_TITLES
from lazybench.report.statistics import Measured

# name -> numerator and denominator of a ratio that is taken record by record: its median
RATIOS = {
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup": ("baseline_generation_s", "same_steps_s"),
    "decode_step_ratio": ("decode_step_s", "baseline_decode_step_s"),
    "memory_ratio": ("peak_memory_bytes", "baseline_peak_memory_bytes"),
    "added_memory_ratio": ("added_memory_bytes", "baseline_added_memory_bytes"),
}
MEANS = (
    *("fidelity_kl", "prompt_tokens_computed", "overhead_s", "prompt_tokens", "output_tokens", *LAUNCHES),
    *("added_memory_bytes", "kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
)
SCORES = tuple(f"{name}{part}" for name in ("score", "relative_score") for part in ("", "_low", "_high"))


def summarise(records: pandas.DataFrame) -> pandas.DataFrame:
    """One row per task, method and its settings, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight. Scores and
    shares are 0..1, times seconds. ``NAME_low`` and ``NAME_high``: the 95% interval, from ten samples on; see
    ``report/statistics.py``.

    Columns (beside those of ``RATIOS``, the medians of paired ratios): ``ttft_speedup_of_sums`` baseline over method;
    ``generation_speedup`` for as many decoding steps as the baseline made; ``efficiency`` measured over FLOPs ratio;
    ``truncated`` samples that lost their middle; ``failed`` records with an error. Columns of scores are left out when
    no record has a score.

    Args:
        records: from ``records_frame``.
    """
    if records.empty:
        return pandas.DataFrame()
    rows = paired(records)
    rows["sample"] = rows.groupby([*ROW[:3], "sample_id"]).ngroup()
    rows["task_number"] = rows.groupby("task").ngroup()
    of_row = dict(iter(rows.groupby(ROW)))
    failed = records.groupby(ROW, sort=False)["failed"].sum()
    tasks = records.groupby(["model", "setting", "category"])["task"].nunique()
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}  # level and a row's names to the rows put together
    for key in failed.index:
        model, setting, _, category, method, params = key
        groups["task", *key] = [key]
        if tasks[model, setting, category] > 1:
            groups.setdefault(("category", model, setting, "", category, method, params), []).append(key)
    found = []
    for names, keys in groups.items():
        numbers = _row(pandas.concat([of_row.get(key, rows[:0]) for key in keys]))
        found.append({**dict(zip(["level", *ROW], names, strict=True)), **numbers, "failed": int(failed[keys].sum())})
    found.sort(key=_order)
    summary = pandas.DataFrame(found)
    return summary.drop(columns=list(SCORES)) if summary["score"].isna().all() else summary


def _row(rows: pandas.DataFrame) -> dict[str, object]:
    """All numbers of one row, from its records; where every record failed, missing ones."""
    samples = rows["sample"].to_numpy()
    measured = partial(Measured.of, samples=samples, tasks=rows["task_number"].to_numpy())
    columns = {str(name): rows[name].to_numpy(dtype=float) for name in rows if rows[name].dtype == float}

    def both(above: str, below: str) -> list[Measured]:
        missing = numpy.isnan(columns[above] + columns[below])
        return [measured(numpy.where(missing, numpy.nan, columns[name])) for name in (above, below)]

    def counted(name: str) -> int:
        return len(numpy.unique(samples[~numpy.isnan(columns[name])]))

    is_baseline = len(rows) > 0 and bool((rows["method"] == "baseline").all())
    row: dict[str, object] = {"n": counted("prompt_tokens"), "n_paired": counted("baseline_prompt_tokens")}
    row |= {"failed": 0, "truncated": counted("truncated_from")}
    score, plain = both("score", "baseline_score")
    with numpy.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: measured(columns[above] / columns[below]) for name, (above, below) in RATIOS.items()}
    estimates = {
        "score": statistics.mean_score(measured(columns["score"])),
        "relative_score": statistics.relative_score(plain if is_baseline else score, plain),
        "fidelity_top1": statistics.mean_score(measured(columns["fidelity_top1"])),
        "fidelity_kl_median": statistics.median(measured(columns["fidelity_kl"])),
        **{name: statistics.median_ratio(ratio) for name, ratio in ratios.items()},
    }
    for name, one in estimates.items():
        row |= one.columns(name)
    row |= {name: statistics.mean(measured(columns[name])) for name in MEANS}
    above, below = map(statistics.mean, both(*RATIOS["ttft_speedup"]))
    row["ttft_speedup_of_sums"] = above / below
    row["flops_ratio"] = statistics.median(measured(columns["flops_ratio"])).value
    row["efficiency"] = estimates["ttft_speedup"].value / row["flops_ratio"]  # type: ignore[operator]
    row["ttft_quartile1_s"], row["ttft_median_s"], row["ttft_quartile3_s"] = rows["ttft_s"].quantile([0.25, 0.5, 0.75])
    return row | {f"{name}_median_s": rows[f"{name}_s"].median() for name in ("generation", "decode_step")}


def _order(row: dict[str, object]) -> tuple[object, ...]:
    """The paper's categories first, a category's row after its tasks; methods stay in the order of their records."""
    papers, category = list(CATEGORY_TITLES), str(row["category"])
    place = papers.index(category) if category in papers else len(papers)
    return row["model"], place, category, row["level"] == "category", row["task"], natural(str(row["setting"]))
