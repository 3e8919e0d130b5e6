"""What the records say: scores, fidelity, speedups, each with a bootstrap interval, and a verdict."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy
import pandas
from numpy.typing import NDArray
from scipy import stats

from lazybench.report.samples import failed_counts, paired_samples, row_order, score_by_repeat
from lazybench.store.record import Record

RESAMPLES = 2_000
SEED = 20240719  # fixed, so that the same records give the same summary
ALLOWED_LOSS = 0.01
LEAST_SAMPLES = 10  # a bootstrap of fewer knows too little of the spread to decide anything

# name -> (numerator, denominator): ratio of the sums over paired samples; no denominator: the mean
STATISTICS: dict[str, tuple[str, str | None]] = {
    "score": ("score", None),
    "relative_score": ("score", "baseline_score"),
    "fidelity_top1": ("fidelity_top1", None),
    "fidelity_kl": ("fidelity_kl", None),
    "ttft_speedup": ("baseline_ttft_s", "ttft_s"),
    "generation_speedup": ("baseline_generation_s", "generation_s"),
    "decode_step_ratio": ("decode_step_s", "baseline_decode_step_s"),
    # FLOPs of a prompt are not in the records; its baseline TTFT stands for them as its weight
    "ideal_ttft_speedup": ("baseline_ttft_s", "ideal_ttft_s"),
    "prompt_tokens_computed": ("prompt_tokens_computed", None),
    "memory_ratio": ("peak_memory_bytes", "baseline_peak_memory_bytes"),
    "overhead_s": ("overhead_s", None),
    "output_tokens": ("output_tokens", None),
    "prompt_tokens": ("prompt_tokens", None),
}
WITH_INTERVAL = (
    *("score", "relative_score", "fidelity_top1", "fidelity_kl", "ttft_speedup", "generation_speedup"),
    "decode_step_ratio",
)
SCORE_COLUMNS = ("score", "score_sd_of_repeats", "relative_score", "verdict")


def summarise(records: Sequence[Record]) -> pandas.DataFrame:
    """The summary of one run; see ``summarise_runs``."""
    return summarise_runs([records])


def summarise_runs(runs: Sequence[Sequence[Record]]) -> pandas.DataFrame:
    """One row per task, method and variant, and per category where it has several tasks (``level`` says which).

    A category is the macro-average over its tasks, as LongBench does it: each task has the same weight in means
    and in ratios of sums, and the bootstrap draws within each task. Scores and shares are 0..1, times seconds.
    ``NAME_low`` and ``NAME_high`` bound the 95% percentile bootstrap interval; they are empty with one sample.

    Columns (beside those): ``ttft_speedup`` baseline over method, ratio of sums; ``ttft_speedup_median`` of the
    paired ratios; ``decode_step_ratio`` and ``memory_ratio`` method over baseline; ``efficiency`` measured over
    ideal speedup; ``failed`` records with an error. Columns of scores are left out when no record has a score.
    """
    samples = paired_samples(runs)
    failed = failed_counts(runs)
    repeats = score_by_repeat(runs)
    if not samples.empty:
        samples["ideal_ttft_s"] = samples["baseline_ttft_s"] / samples["ideal_ttft_speedup"]
    rows = []
    for (model, category), tasks in _tasks_of_categories(failed).items():
        levels: list[tuple[str, tuple[str, ...]]] = [("task", (task,)) for task in tasks]
        if len(tasks) > 1:
            levels.append(("category", tuple(tasks)))
        for level, names in levels:
            keys = [key for key in failed if (key[0], key[2]) == (model, category) and key[1] in names]
            for method, variant in dict.fromkeys(key[3:] for key in keys):
                mine = [key for key in keys if key[3:] == (method, variant)]
                chosen = _only(samples, model, category, method, variant)
                strata = [chosen[chosen["task"] == name] for name in names] if not chosen.empty else []
                rows.append(
                    {
                        "level": level,
                        "model": model,
                        "category": category,
                        "task": names[0] if level == "task" else "",
                        "method": method,
                        "variant": variant,
                        **_row([stratum for stratum in strata if len(stratum)]),
                        "score_sd_of_repeats": _sd_of_repeats(_only(repeats, model, category, method, variant), names),
                        "failed": sum(failed[key] for key in mine),
                    }
                )
    rows.sort(key=_order)
    return _columns(pandas.DataFrame(rows))


def verdict(low: float, high: float, n: int) -> str:
    """What a paired interval of the relative score allows to say about a loss of 1%."""
    if not math.isfinite(low):  # against a baseline that scores nothing there is no share to lose
        return f"undecided at n={n}"
    if n >= LEAST_SAMPLES and low > 1 - ALLOWED_LOSS:
        return "within 1%"
    if n >= LEAST_SAMPLES and high < 1 - ALLOWED_LOSS:
        return "worse"
    return f"undecided at n={n}"


def _row(strata: list[pandas.DataFrame]) -> dict[str, object]:
    """All numbers of one row, from its samples: one frame per task."""
    together = pandas.concat(strata) if strata else pandas.DataFrame()
    row: dict[str, object] = {"n": len(together)}
    if together.empty:
        return row
    row["n_paired"] = int(together["baseline_ttft_s"].notna().sum())
    arrays = [_pairs(stratum) for stratum in strata]
    points = _statistics(arrays, [numpy.arange(array.shape[-1])[None] for array in arrays])[:, 0]
    low, high = _interval(arrays)
    for index, name in enumerate(STATISTICS):
        row[name] = points[index]
        if name in WITH_INTERVAL:
            row[f"{name}_low"], row[f"{name}_high"] = low[index], high[index]
    row["efficiency"] = points[_at("ttft_speedup")] / points[_at("ideal_ttft_speedup")]
    row["ttft_speedup_median"] = (together["baseline_ttft_s"] / together["ttft_s"]).median()
    row["ttft_median_s"] = together["ttft_s"].median()
    row["ttft_quartile1_s"], row["ttft_quartile3_s"] = together["ttft_s"].quantile([0.25, 0.75])
    row["generation_median_s"] = together["generation_s"].median()
    row["decode_step_median_s"] = together["decode_step_s"].median()
    if (together["method"] == "baseline").all():
        row["verdict"] = ""
    elif together["score"].notna().any():
        at = _at("relative_score")
        row["verdict"] = verdict(low[at], high[at], int((together["score"] + together["baseline_score"]).notna().sum()))
    return row


def _pairs(stratum: pandas.DataFrame) -> NDArray[numpy.float64]:
    """Numerators and denominators, empty together.  # (statistics, 2, samples)"""
    values = numpy.ones((len(STATISTICS), 2, len(stratum)))
    for index, (above, below) in enumerate(STATISTICS.values()):
        values[index, 0] = stratum[above]
        if below is not None:
            values[index, 1] = stratum[below]
    lacking = numpy.asarray(numpy.isnan(values).any(axis=1))  # (statistics, samples)
    values[numpy.broadcast_to(lacking[:, None, :], values.shape)] = numpy.nan
    return values


def _statistics(arrays: list[NDArray[numpy.float64]], drawn: Sequence[NDArray[numpy.int_]]) -> NDArray[numpy.float64]:
    """Every statistic on each draw of samples: macro means over the tasks, then the ratio.  # (statistics, draws)"""
    with warnings.catch_warnings(), numpy.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # columns that were not measured are empty
        means = [numpy.nanmean(array[:, :, indices], axis=-1) for array, indices in zip(arrays, drawn, strict=True)]
        above, below = numpy.nanmean(means, axis=0).swapaxes(0, 1)
        return above / below


def _interval(arrays: list[NDArray[numpy.float64]]) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """95% bounds of every statistic; empty when a task has one sample only."""
    if any(array.shape[-1] < 2 for array in arrays):
        empty = numpy.full(len(STATISTICS), numpy.nan)
        return empty, empty

    def statistic(*drawn: NDArray[numpy.int_], axis: int = -1) -> NDArray[numpy.float64]:
        return _statistics(arrays, [numpy.atleast_2d(indices) for indices in drawn])

    with warnings.catch_warnings(), numpy.errstate(invalid="ignore"):
        # a statistic that was not measured has no spread: its bounds are empty, which says it
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            [numpy.arange(array.shape[-1]) for array in arrays],  # samples are drawn whole: pairs stay pairs
            statistic,
            n_resamples=RESAMPLES,
            vectorized=True,
            axis=-1,
            method="percentile",
            rng=numpy.random.default_rng(SEED),
        )
    return result.confidence_interval.low, result.confidence_interval.high


def _sd_of_repeats(repeats: pandas.DataFrame, names: Sequence[str]) -> float:
    means = repeats[repeats["task"].isin(names)].groupby("repeat")["score"].mean()
    return float(means.std()) if len(means) > 1 else float("nan")


def _tasks_of_categories(failed: dict[tuple[str, ...], int]) -> dict[tuple[str, str], list[str]]:
    tasks: dict[tuple[str, str], list[str]] = {}
    for model, task, category, *_ in failed:
        names = tasks.setdefault((model, category), [])
        if task not in names:
            names.append(task)
    return {key: sorted(names) for key, names in tasks.items()}


def _only(frame: pandas.DataFrame, model: str, category: str, method: str, variant: str) -> pandas.DataFrame:
    if frame.empty:
        return frame
    wanted = {"model": model, "category": category, "method": method, "variant": variant}
    return frame[numpy.logical_and.reduce([frame[name] == value for name, value in wanted.items()])]


def _order(row: dict[str, object]) -> tuple[object, ...]:
    # a category's row follows its tasks
    key = row_order([str(row[name]) for name in ("model", "category", "task", "method", "variant")])
    return (*key[:3], row["level"] == "category", *key[3:])


def _columns(summary: pandas.DataFrame) -> pandas.DataFrame:
    first = ["level", "model", "category", "task", "method", "variant", "n", "n_paired", "failed"]
    last = ["ttft_speedup_median", "efficiency", "verdict"]
    summary = summary[
        [
            *(c for c in first if c in summary),
            *(c for c in summary if c not in first + last),
            *(c for c in last if c in summary),
        ]
    ]
    if "score" not in summary or summary["score"].isna().all():
        scores = [c for c in summary if str(c).removesuffix("_low").removesuffix("_high") in SCORE_COLUMNS]
        summary = summary.drop(columns=scores)
    return summary


def _at(name: str) -> int:
    return list(STATISTICS).index(name)
