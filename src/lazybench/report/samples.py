"""From records to one row per sample, method and repeat, with its baseline of the same run beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import numpy
import pandas

from lazybench.methods import label
from lazybench.report.paper import CATEGORY_TITLES, METHOD_TITLES
from lazybench.run.record import Record

ROW = ["model", "setting", "task", "category", "method", "params"]
HELD = {"params": "setting"}  # a column to the record's field, where they differ
SAMPLE = ["model", "setting", "task", "sample_id"]
TIMES = ["ttft_s", "generation_s", "decode_step_s", "overhead_s"]
NUMBERS = [
    *("score", "fidelity_top1", "fidelity_kl", "fidelity_first_top1", "fidelity_first_kl"),
    *("prompt_tokens", "output_tokens", "prompt_tokens_computed"),
    *("flops_ratio", "peak_memory_bytes", "added_memory_bytes", "truncated_from"),
    *("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"),
]
PEAKS = ("peak_memory_bytes", "added_memory_bytes")
LEAST_DRIFT_RECORDS = 8  # two in each quarter


def paired_records(runs: Iterable[Sequence[Record]], settings: Sequence[str] | None = None) -> pandas.DataFrame:
    """One row per run, sample, method and repeat; ``baseline_*`` is the baseline's value on that sample and repeat.

    A repeat that the baseline lacks is paired with the median of its others. Failed records are left out. Times and
    peaks of memory are paired within a run alone. A run without a baseline of its own takes what no machine decides,
    scores and bytes of the KV cache, from the first run of its group that has one.
    Where several runs of a group measured the baseline of a sample, the first one's row counts.
    ``same_steps_s`` is the generation time for as many decoding steps as the baseline made.

    Args:
        settings: of each run, as ``grouping.Group`` names it; None: none has one.
    """
    runs = list(runs)
    names = settings or [""] * len(runs)
    frames = [_of_one_run(records, name, place) for place, (records, name) in enumerate(zip(runs, names, strict=True))]
    # of runs whose records all failed the columns are left, so that what reads them need not ask
    frames = [frame for frame in frames if not frame.empty] or frames[:1]
    if not frames:
        return pandas.DataFrame()
    together = pandas.concat(frames, ignore_index=True)
    together = _with_others_baselines(together)
    first = together.groupby([*ROW, "sample_id"], sort=False)["run"].transform("first")
    return together[together["run"] == first].reset_index(drop=True)


def _with_others_baselines(rows: pandas.DataFrame) -> pandas.DataFrame:
    lacking = rows["baseline_prompt_tokens"].isna()
    if not lacking.any():
        return rows
    names = [name for name in NUMBERS if name not in PEAKS]
    known = rows[rows["method"] == "baseline"].groupby(SAMPLE, sort=False)[names].first().add_prefix("baseline_")
    columns = list(known)
    found = rows.loc[lacking, SAMPLE].merge(known.reset_index(), on=SAMPLE, how="left")
    rows.loc[lacking, columns] = found[columns].to_numpy()
    return rows


def paired_samples(runs: Iterable[Sequence[Record]]) -> pandas.DataFrame:
    """``paired_records`` with the repeats put together: the median of times, the mean of everything else."""
    rows = paired_records(runs)
    if rows.empty:
        return rows
    values = [name for name in rows if name not in (*ROW, "sample_id", "repeat", "run")]
    times = (*TIMES, *(f"baseline_{name}" for name in TIMES), "same_steps_s")
    how = {name: "median" if name in times else "mean" for name in values}
    return rows.groupby([*ROW, "sample_id"], sort=False).agg(how).reset_index()


def repeated_baselines(runs: Iterable[Sequence[Record]]) -> int:
    """How many samples' baselines stand in more than one run, so that all but the first are left out of its row."""
    seen: dict[tuple[object, ...], int] = {}
    for records in runs:
        for key in {record.key[:-1] for record in records if record.method == "baseline"}:
            seen[key] = seen.get(key, 0) + 1
    return sum(count > 1 for count in seen.values())


def _of_one_run(records: Sequence[Record], setting: str, place: int) -> pandas.DataFrame:
    names = [name for name in (*ROW, "sample_id", "repeat", *TIMES, *NUMBERS) if name != "setting"]
    measured = pandas.DataFrame(
        [[getattr(record, HELD.get(name, name)) for name in names] for record in records if not record.error],
        columns=names,
    )
    measured.insert(1, "setting", setting)
    measured["run"] = place
    measured[TIMES + NUMBERS] = measured[TIMES + NUMBERS].astype(float)
    baseline = measured[measured["method"] == "baseline"]
    columns = {name: f"baseline_{name}" for name in [*TIMES, *NUMBERS]}
    same_repeat = baseline[[*SAMPLE, "repeat", *columns]].rename(columns=columns)
    any_repeat = baseline.groupby(SAMPLE, sort=False)[list(columns)].median().rename(columns=columns).reset_index()
    paired = measured.merge(same_repeat, on=[*SAMPLE, "repeat"], how="left")
    paired = paired.fillna(measured[SAMPLE].merge(any_repeat, on=SAMPLE, how="left"))
    steps = (paired["baseline_output_tokens"] - 1).clip(lower=0)
    paired["same_steps_s"] = paired["ttft_s"] + (steps * paired["decode_step_s"]).where(steps > 0, steps)
    return paired


def failed_counts(runs: Iterable[Sequence[Record]], settings: Sequence[str]) -> dict[tuple[str, ...], int]:
    """A row's key (``ROW``) to its number of failed records; rows without one are there too."""
    counts: dict[tuple[str, ...], int] = {}
    for records, setting in zip(runs, settings, strict=True):
        for record in records:
            key = (record.model, setting, record.task, record.category, record.method, record.setting)
            counts[key] = counts.get(key, 0) + (record.error is not None)
    return counts


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


def settings_label(method: str, params: str) -> str:
    """A method's parameters, JSON as a record's ``setting`` has them, in a few words for people."""
    return label(method, json.loads(params)) if params else ""


def row_order(row: Sequence[str]) -> tuple[object, ...]:
    """Sort key of (model, category, task, method, params): the paper's order, then by name, numbers as numbers."""
    model, category, task, method, params = row
    return (model, _place(CATEGORY_TITLES, category), category, task, *method_order(method, params))


def method_order(method: str, params: str) -> tuple[object, ...]:
    """Sort key of a method and its parameters."""
    return (_place(METHOD_TITLES, method), method, natural(settings_label(method, params)))


def natural(text: str) -> tuple[tuple[float, str], ...]:
    """Sort key of a text with numbers in it: ``length=900`` before ``length=1500``."""
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", text)
    return tuple((float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts)


def _place(known: Iterable[str], name: str) -> int:
    names = list(known)
    return names.index(name) if name in names else len(names)
