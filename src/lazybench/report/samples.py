"""From records to one row per sample and method, with its baseline of the same run beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy
import pandas

from lazybench.report.paper import CATEGORY_TITLES, METHOD_TITLES
from lazybench.store.record import Record

ROW = ["model", "task", "category", "method", "variant"]
SAMPLE = ["model", "task", "sample_id"]
TIMES = ["ttft_s", "generation_s", "decode_step_s", "overhead_s"]
MEANS = [
    *("score", "prompt_tokens", "output_tokens", "prompt_tokens_computed", "ideal_ttft_speedup"),
    *("peak_memory_bytes", "fidelity_top1", "fidelity_kl"),
]
LEAST_DRIFT_RECORDS = 8  # two in each quarter


def paired_samples(runs: Iterable[Sequence[Record]]) -> pandas.DataFrame:
    """One row per model, task, method, variant and sample; ``baseline_*`` is the baseline's value on that sample.

    Repeats are put together first: the median of times, the mean of everything else. Failed records are left
    out. Pairs never span runs; of a row that several runs measured, the first run's is taken.
    """
    frames = [_of_one_run(records) for records in runs]
    together = pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()
    if together.empty:
        return together
    return together.drop_duplicates([*ROW, "sample_id"]).reset_index(drop=True)


def _of_one_run(records: Sequence[Record]) -> pandas.DataFrame:
    measured = pandas.DataFrame([asdict(record) for record in records if record.error is None])
    if measured.empty:
        return measured
    measured[TIMES + MEANS] = measured[TIMES + MEANS].astype(float)
    how = {**dict.fromkeys(TIMES, "median"), **dict.fromkeys(MEANS, "mean")}
    samples = measured.groupby([*ROW, "sample_id"], sort=False).agg(how).reset_index()
    baseline = samples[samples["method"] == "baseline"]
    columns = {name: f"baseline_{name}" for name in [*TIMES, *MEANS]}
    return samples.merge(baseline[[*SAMPLE, *columns]].rename(columns=columns), on=SAMPLE, how="left")


def failed_counts(runs: Iterable[Sequence[Record]]) -> dict[tuple[str, ...], int]:
    """(model, task, category, method, variant) to its number of failed records; rows without one are there too."""
    counts: dict[tuple[str, ...], int] = {}
    for records in runs:
        for record in records:
            key = (record.model, record.task, record.category, record.method, record.variant)
            counts[key] = counts.get(key, 0) + (record.error is not None)
    return counts


def score_by_repeat(runs: Iterable[Sequence[Record]]) -> pandas.DataFrame:
    """Mean score per row and repeat, for the spread of methods that draw at random."""
    scored = [asdict(record) for records in runs for record in records if record.score is not None]
    if not scored:
        return pandas.DataFrame(columns=[*ROW, "repeat", "score"])
    return pandas.DataFrame(scored).groupby([*ROW, "repeat"], sort=False)["score"].mean().reset_index()


def baseline_drift(records: Sequence[Record]) -> float | None:
    """How much the baseline's TTFT changed between the first and last quarter of a run, as a share (0.1: 10% slower).

    Prompts differ in length, so the quarters are compared at equal length: ordinary least squares of log TTFT on
    log prompt tokens and the quarter. None with fewer than eight baseline records, or where the
    lengths changed with the quarters.
    """
    timed = [r for r in records if r.method == "baseline" and r.error is None and r.ttft_s and r.prompt_tokens]
    if len(timed) < LEAST_DRIFT_RECORDS:
        return None
    quarter = numpy.arange(len(timed)) * 4 // len(timed)
    length = numpy.log([record.prompt_tokens for record in timed])
    factors = numpy.column_stack([length - length.mean(), *(quarter == index for index in range(4))])
    logs = numpy.log([float(record.ttft_s or 0.0) for record in timed])
    fit, _, rank, _ = numpy.linalg.lstsq(factors.astype(float), logs, rcond=None)
    if rank < factors.shape[1] and numpy.ptp(length) > 1e-6:  # lengths changed with the quarters
        return None
    return float(numpy.exp(fit[4] - fit[1]) - 1.0)


def row_order(row: Sequence[str]) -> tuple[object, ...]:
    """Sort key of (model, category, task, method, variant): the paper's order, then by name, numbers as numbers."""
    model, category, task, method, variant = row
    numbers = tuple((float(part), "") if part[0].isdigit() else (-1.0, part) for part in _parts(variant))
    return (model, _place(CATEGORY_TITLES, category), category, task, _place(METHOD_TITLES, method), method, numbers)


def _parts(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?|[^\d]+", text)


def _place(known: Iterable[str], name: str) -> int:
    names = list(known)
    return names.index(name) if name in names else len(names)
