"""What the records say: scores, fidelity, speedups, each with its bounds, and which claims they allow."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache, partial

import numpy
import pandas

from lazybench.report import statistics
from lazybench.report.samples import ROW, failed_counts, method_order, natural, paired_records, row_order
from lazybench.report.statistics import Estimate, Measured
from lazybench.run.record import Record

# name -> numerator and denominator of a ratio that is taken record by record; its median leads
RATIOS = {
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup": ("baseline_same_steps_s", "same_steps_s"),
    "decode_step_ratio": ("decode_step_s", "baseline_decode_step_s"),
}
RATIOS_WITHOUT_BOUNDS = {
    "memory_ratio": ("peak_memory_bytes", "baseline_peak_memory_bytes"),
    "added_memory_ratio": ("added_memory_bytes", "baseline_added_memory_bytes"),
}
RATIOS_OF_SUMS = {
    "ttft_speedup_of_sums": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup_raw": ("baseline_generation_s", "generation_s"),  # whatever number of steps each made
}
MEANS = (
    *("fidelity_kl", "prompt_tokens_computed", "overhead_s", "prompt_tokens", "output_tokens"),
    *("added_memory_bytes", "kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
)
FIRST = ("level", *ROW, "n", "n_paired", "failed", "truncated", "bounds")
SCORE_COLUMNS = ("score", "score_sd_of_repeats", "relative_score", "verdict", "p_within_1_percent")


def summarise(records: Sequence[Record]) -> pandas.DataFrame:
    """The summary of one run; see ``summarise_runs``."""
    return summarise_runs([records])


def summarise_runs(runs: Sequence[Sequence[Record]], settings: Sequence[str] | None = None) -> pandas.DataFrame:
    """One row per task, method and its settings, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight. Scores and
    shares are 0..1, times seconds. ``NAME_low`` and ``NAME_high`` bound a number as ``bounds`` says: its 95% interval
    or, below ten samples, the lowest and highest value; see ``report/statistics.py``. Where a number stands on fewer
    samples than its row, so that its bounds are of the other kind, ``NAME_bounds`` says so.

    Columns (beside those of ``RATIOS``, the medians of paired ratios): ``ttft_speedup_of_sums`` baseline over method;
    ``generation_speedup`` for as many decoding steps as the baseline made, ``generation_speedup_raw`` as it was;
    ``efficiency`` measured over FLOPs ratio; ``clock`` "undecided" where the times do not tell the TTFT speedup from 1;
    ``..._against_fastest`` the same speedups against the faster of plain ``generate`` and the engine with nothing
    pruned, where both ran; ``truncated`` samples that lost their middle; ``failed`` records with an error; ``verdict``
    what the scores allow to claim, ``p_within_1_percent`` corrected for the number of claims (Holm). Columns of scores
    are left out when no record has a score.

    Args:
        settings: of each run, as ``grouping.Group`` names it; None: none has one.
    """
    settings = settings or [""] * len(runs)
    records = paired_records(runs, settings)
    if not len(records.columns):
        return records
    records["baseline_same_steps_s"] = records["baseline_generation_s"]
    records["sample"] = records.groupby([*ROW[:3], "sample_id"]).ngroup()
    records["task_number"] = records.groupby("task").ngroup()
    by_method = dict(iter(records.groupby(["model", "setting", "method", "params"])))
    failed = failed_counts(runs, settings)
    rows = []
    for (model, setting, category), tasks in _tasks_of_categories(failed).items():
        levels = [("task", [task]) for task in tasks] + ([("category", tasks)] if len(tasks) > 1 else [])
        for level, names in levels:
            keys = [key for key in failed if key[:2] + key[3:4] == (model, setting, category) and key[2] in names]
            methods = list(dict.fromkeys((key[4], key[5]) for key in keys))
            of_methods = {method: by_method.get((model, setting, *method), records[:0]) for method in methods}
            chosen = {method: rows_of[rows_of["task"].isin(names)] for method, rows_of in of_methods.items()}
            unpruned = next((method for method in methods if _nothing_pruned(chosen[method])), None)
            for method, params in methods:
                rows.append(
                    {
                        "level": level,
                        **dict(zip(ROW, (model, setting, names[0], category, method, params), strict=True)),
                        **({"task": ""} if level == "category" else {}),
                        **_row(chosen[method, params]),
                        **_against_fastest((method, params), unpruned, chosen),
                        "failed": sum(failed[key] for key in keys if key[4:] == (method, params)),
                    }
                )
    _decide(rows)
    rows.sort(key=_order)
    return _columns(pandas.DataFrame(rows))


def _row(rows: pandas.DataFrame) -> dict[str, object]:
    """All numbers of one row, from its records; where every record failed, missing ones."""
    samples = rows["sample"].to_numpy()
    measured = partial(Measured.of, samples=samples, tasks=rows["task_number"].to_numpy())

    @cache
    def column(name: str) -> statistics.Array:
        return rows[name].to_numpy(dtype=float)

    def paired(above: str, below: str) -> list[Measured]:
        missing = numpy.isnan(column(above) + column(below))
        return [measured(numpy.where(missing, numpy.nan, column(name))) for name in (above, below)]

    def ratios(above: str, below: str) -> Measured:
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return measured(column(above) / column(below))

    def counted(name: str) -> int:
        return len(numpy.unique(samples[~numpy.isnan(column(name))]))

    row: dict[str, object] = {"n": counted("prompt_tokens")}
    row["n_paired"] = counted("baseline_prompt_tokens")
    row["truncated"] = counted("truncated_from")
    row["bounds"] = measured(column("prompt_tokens")).kind if len(rows) else float("nan")
    for name in ("score", "fidelity_top1"):
        _put(row, name, statistics.mean_score(measured(column(name))))
    repeats = rows["score"].groupby(rows["repeat"]).mean()
    row["score_sd_of_repeats"] = repeats.std() if len(repeats) > 1 else float("nan")
    score, baseline = paired("score", "baseline_score")
    if len(rows) and (rows["method"] == "baseline").all():
        score = baseline
    _put(row, "relative_score", statistics.relative_score(score, baseline))
    row["_scored"] = (score, baseline) if (rows["method"] != "baseline").all() and score.count else None
    medians = {name: statistics.median_ratio(ratios(*pair)) for name, pair in RATIOS.items()}
    for name, estimate in medians.items():
        _put(row, name, estimate)
    _put(row, "fidelity_kl_median", statistics.median(measured(column("fidelity_kl"))))
    for name, pair in RATIOS_WITHOUT_BOUNDS.items():
        row[name] = statistics.median_ratio(ratios(*pair)).value
    for name, pair in RATIOS_OF_SUMS.items():
        above, below = map(statistics.mean, paired(*pair))
        row[name] = above / below
    for name in MEANS:
        row[name] = statistics.mean(measured(column(name)))
    row["flops_ratio"] = statistics.median(measured(column("flops_ratio"))).value
    speedup, speedups = medians["ttft_speedup"], ratios(*RATIOS["ttft_speedup"])
    row["efficiency"] = speedup.value / row["flops_ratio"]  # type: ignore[operator]
    told = (rows["method"] == "baseline").all() or not len(speedups.values)
    row["clock"] = "" if told or statistics.clock_decides(speedups, speedup) else "undecided"
    row["ttft_median_s"] = rows["ttft_s"].median()
    row["ttft_quartile1_s"], row["ttft_quartile3_s"] = rows["ttft_s"].quantile([0.25, 0.75])
    row["generation_median_s"] = rows["generation_s"].median()
    row["decode_step_median_s"] = rows["decode_step_s"].median()
    return row


def _against_fastest(
    mine: tuple[str, str], unpruned: tuple[str, str] | None, chosen: dict[tuple[str, str], pandas.DataFrame]
) -> dict[str, float | str]:
    """Speedups against the faster of the baseline and the engine with nothing pruned, which is named."""
    if unpruned is None or mine[0] == "baseline" or mine == unpruned or chosen[mine].empty:
        return {}
    found: dict[str, float | str] = {}
    names = ["run", "sample", "repeat"]
    for name, (above, below) in list(RATIOS.items())[:2]:
        other = chosen[unpruned]
        faster = statistics.median_ratio(_measured(other, other[above] / other[below])).value > 1
        reference = other[[*names, below]].rename(columns={below: "reference_s"})
        paired = chosen[mine].merge(reference, on=names)
        if paired.empty:  # they never met in one run
            return {}
        ratio = paired["reference_s" if faster else above] / paired[below]
        found[f"{name}_against_fastest"] = statistics.median_ratio(_measured(paired, ratio)).value
        found[f"fastest_of_{name.split('_')[0]}"] = " ".join(unpruned) if faster else "baseline"
    return found


def _nothing_pruned(rows: pandas.DataFrame) -> bool:
    """Of the engine itself: another method may leave a short prompt whole (ASL), after choosing."""
    whole = (rows["method"] == "lazyllm") & (rows["prompt_tokens_computed"] == 1) & (rows["flops_ratio"] == 1)
    return len(rows) > 0 and bool(whole.all())


def _decide(rows: list[dict[str, object]]) -> None:
    """What each row's scores allow to claim, corrected for the number of rows that could claim it."""
    pairs: list[tuple[Measured, Measured] | None] = [row.pop("_scored", None) for row in rows]  # type: ignore[misc]
    places = [place for place, pair in enumerate(pairs) if pair and pair[0].count >= statistics.LEAST_SAMPLES_OF_CLAIM]
    scored = [pair for place in places if (pair := pairs[place])]
    within = dict(zip(places, statistics.holm([statistics.p_not_worse(*pair) for pair in scored]), strict=True))
    worse = dict(zip(places, statistics.holm([statistics.p_worse(*pair) for pair in scored]), strict=True))
    for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        row["p_within_1_percent"] = within.get(place, float("nan"))
        if pair is None:
            row["verdict"] = ""
        elif within.get(place, 1.0) < 1 - statistics.CONFIDENCE:
            row["verdict"] = "within 1%"
        elif worse.get(place, 1.0) < 1 - statistics.CONFIDENCE:
            row["verdict"] = "worse"
        else:
            row["verdict"] = f"undecided at n={pair[0].count}"


def _measured(rows: pandas.DataFrame, values: pandas.Series) -> Measured:
    return Measured.of(values.to_numpy(dtype=float), rows["sample"].to_numpy(), rows["task_number"].to_numpy())


def _put(row: dict[str, object], name: str, estimate: Estimate) -> None:
    row[name], row[f"{name}_low"], row[f"{name}_high"] = estimate.value, estimate.low, estimate.high
    if estimate.kind != row["bounds"] and not math.isnan(estimate.low):
        row[f"{name}_bounds"] = estimate.kind


def _tasks_of_categories(failed: dict[tuple[str, ...], int]) -> dict[tuple[str, str, str], list[str]]:
    tasks: dict[tuple[str, str, str], set[str]] = {}
    for model, setting, task, category, *_ in failed:
        tasks.setdefault((model, setting, category), set()).add(task)
    return {key: sorted(names) for key, names in tasks.items()}


def _order(row: dict[str, object]) -> tuple[object, ...]:
    # a category's row follows its tasks; tasks of one name stand by their settings
    key = row_order([str(row[name]) for name in ("model", "category", "task", "method", "params")])
    setting = natural(str(row["setting"]))
    return (
        *key[:3],
        row["level"] == "category",
        key[3],
        setting,
        *method_order(str(row["method"]), str(row["params"])),
    )


def _columns(summary: pandas.DataFrame) -> pandas.DataFrame:
    if summary.empty:
        return summary
    summary = summary[[*(c for c in FIRST if c in summary), *(c for c in summary if c not in FIRST)]]
    if "score" not in summary or summary["score"].isna().all():
        scores = [c for c in summary if re.sub("_(low|high|bounds)$", "", str(c)) in SCORE_COLUMNS]
        summary = summary.drop(columns=scores)
    return summary
