"""From records to pandas: a row a record, and a row a sample with the baseline's values of the same run beside it.

Columns that name a row (``ROW``), a record's times and numbers, ``run`` (its number, the oldest first) and ``seed``;
``params`` is a record's ``setting``: JSON as one text. ``baseline_NAME`` is the baseline's value on that sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas

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
    counts. ``same_steps_s`` is the generation time for as many decoding steps as the baseline made.
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
    return _together(found[found["run"] == _newest(found)])


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
