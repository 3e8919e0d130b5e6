"""From records to pandas: a row a record, its baseline of the same run beside it, and a row a sample.

Columns that name a row (``ROW``), a record's times and numbers, ``run`` (its number, the oldest first) and ``seed``;
``params`` is a record's ``setting``: JSON as one text. ``baseline_NAME`` is the baseline's value on that sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import pandas

from lazybench.methods import label
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
LAUNCHES = ["prefill_launches", "prefill_waits", "step_launches", "step_waits", "revived_tokens_per_step"]
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
            *(record.method, record.setting, run, seeds[run] if seeds else 0, record.sample_id, record.repeat),
            *(record.error is not None, *(getattr(record, name) for name in VALUES)),
            *((record.details or {}).get(name) for name in LAUNCHES),
        )
        for run, records in enumerate(runs)
        for record in records
    ]
    frame = pandas.DataFrame(rows, columns=[*ROW, "run", "seed", "sample_id", "repeat", "failed", *VALUES, *LAUNCHES])
    return frame.astype({"failed": bool, **dict.fromkeys([*VALUES, *LAUNCHES], float)})


def paired(records: pandas.DataFrame) -> pandas.DataFrame:
    """The records that did not fail, ``baseline_*`` beside each.

    A repeat that the baseline lacks is paired with the median of its others. Times and peaks of memory are paired
    within a run alone. A run without a baseline of its own takes what no machine decides, scores and bytes of the KV
    cache, from the newest run of its rows that has one. Of a sample that several runs measured the newest counts.
    ``same_steps_s`` is the generation time for as many decoding steps as the baseline made.
    """
    rows = records[~records["failed"]].reset_index(drop=True)
    baseline = rows[rows["method"] == "baseline"]
    columns = {name: f"baseline_{name}" for name in VALUES}
    in_run = ["run", *SAMPLE]
    same_repeat = baseline[[*in_run, "repeat", *VALUES]].rename(columns=columns)
    any_repeat = baseline.groupby(in_run, sort=False)[VALUES].median().rename(columns=columns).reset_index()
    found = rows.merge(same_repeat, on=[*in_run, "repeat"], how="left")
    found = found.fillna(rows[in_run].merge(any_repeat, on=in_run, how="left"))
    lacking = found["baseline_prompt_tokens"].isna()
    if lacking.any():
        known = baseline.groupby(SAMPLE, sort=False)[NUMBERS].last().rename(columns=columns).reset_index()
        others = found.loc[lacking, SAMPLE].merge(known, on=SAMPLE, how="left")
        names = [columns[name] for name in NUMBERS]
        found.loc[lacking, names] = others[names].to_numpy()
    steps = (found["baseline_output_tokens"] - 1).clip(lower=0)
    found["same_steps_s"] = found["ttft_s"] + (steps * found["decode_step_s"]).where(steps > 0, steps)
    return found[found["run"] == _newest(found)].reset_index(drop=True)


def superseded(records: pandas.DataFrame) -> dict[tuple[int, int], int]:
    """How many records of a run a newer one holds too, by the numbers of the two; baselines aside, which pair."""
    rows = records[~records["failed"]]
    rows = rows[rows["method"] != "baseline"].assign(newest=_newest(rows))
    counts = rows[rows["run"] != rows["newest"]].groupby(["run", "newest"]).size()
    return dict(counts.items())  # type: ignore[arg-type]


def by_sample(rows: pandas.DataFrame) -> pandas.DataFrame:
    """``paired`` with a sample's repeats put together: the median of times, the mean of everything else."""
    times = {*TIMES, *(f"baseline_{name}" for name in TIMES), "same_steps_s"}
    values = [name for name in rows if name in times or str(name).removeprefix("baseline_") in VALUES]
    how = {name: "median" if name in times else "mean" for name in values}
    return rows.groupby([*ROW, "sample_id"], sort=False).agg(how).reset_index()


def settings_label(method: str, params: str) -> str:
    """A method's parameters, JSON as a record's ``setting`` has them, in a few words for people."""
    return label(method, json.loads(params)) if params else ""


def natural(text: str) -> tuple[tuple[float, str], ...]:
    """Sort key of a text with numbers in it: ``length=900`` before ``length=1500``."""
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", text)
    return tuple((float(part), "") if part[0].isdigit() else (-1.0, part) for part in parts)


def _newest(rows: pandas.DataFrame) -> pandas.Series:
    return rows.groupby([*ROW, "seed", "sample_id"], sort=False)["run"].transform("max")
