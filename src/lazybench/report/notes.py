"""What a table must say in words: what its rows leave out, and what makes its numbers less certain."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from lazybench.report.names import category_rows, task_title
from lazybench.report.samples import baseline_drift, repeated_baselines
from lazybench.report.statistics import LEAST_SAMPLES, RANGE
from lazybench.run.reading import Run, missing_shards
from lazybench.run.record import Record

DRIFT_WORTH_TELLING = 0.10
CLAIMS = {"within 1%": "loses less than 1% of the score", "worse": "loses more than 1% of the score"}
CLAIM_NOTE = (
    "Claims about 1% are one-sided tests from 30 samples on, corrected (Holm) for the number of rows that make them."
)


def reading_notes(summary: pandas.DataFrame, flops: bool = True) -> list[str]:
    """How to read the numbers: bounds and ratios, as far as the summary holds them.

    Args:
        flops: FLOPs ratios are shown.
    """
    kinds = [summary[name] for name in summary if str(name) == "bounds" or str(name).endswith("_bounds")]
    bounds = {kind for column in kinds for kind in column.dropna()}
    told = []
    if bounds - {RANGE}:
        told.append("[brackets]: 95% interval.")
    if RANGE in bounds:
        told.append(f"(parentheses), below {LEAST_SAMPLES} samples or with a task of one: {RANGE}, no interval.")
    if "score" in summary:
        told.append("Score: 0 to 100.")
    if summary.get("fidelity_top1", pandas.Series(dtype=float)).notna().any():
        told.append("Same token: how often the method's next token is the baseline's, along the baseline's own answer.")
    if summary["ttft_speedup"].notna().any():
        told.append(
            "TTFT: time to first token, the median. TTFT speedup: baseline over method, the median of the paired "
            "ratios. Decoding step x: method over baseline, above 1 is slower."
        )
    if flops:
        told.append("FLOPs ratio: FLOPs of the plain prefill over the method's.")
    return [" ".join(told)]


def row_notes(summary: pandas.DataFrame, names: dict[tuple[str, str], str]) -> list[str]:
    """What single rows need said: an undecided clock, the fastest plain engine, truncated and failed samples."""
    notes = []
    if (summary.get("clock", pandas.Series(dtype=str)) == "undecided").any():
        notes.append("?: undecided, the clock's spread is larger than the effect.")
    tasks = summary[summary["level"] == "task"]
    if "fastest_of_ttft" in summary:
        rows = category_rows(summary)
        fastest = rows[["fastest_of_ttft", "fastest_of_generation"]]
        for _, row in rows[(fastest.notna() & (fastest != "baseline")).any(axis=1)].iterrows():
            notes.append(
                f"{names[row['method'], row['params']]} on {task_title(row['task'], row['category'], row['setting'])} "
                "against the faster of plain generate and the engine with nothing pruned: "
                f"TTFT {row['ttft_speedup_against_fastest']:.2f}x (over {row['fastest_of_ttft']}), "
                f"generation {row['generation_speedup_against_fastest']:.2f}x (over {row['fastest_of_generation']})."
            )
    claims = [
        f"{names[row['method'], row['params']]} on {task_title(row['task'], row['category'], row['setting'])} {said}"
        for _, row in category_rows(summary).iterrows()
        if (said := CLAIMS.get(row.get("verdict", "")))
    ]
    if claims:
        notes.append(f"{'; '.join(claims)}. {CLAIM_NOTE}")
    if truncated := int(tasks.loc[tasks["method"] == "baseline", "truncated"].sum()):
        notes.append(f"{truncated} samples were longer than the prompt limit and lost their middle (truncated_from).")
    if failed := int(tasks["failed"].sum()):
        notes.append(f"{failed} records failed and are left out; samples.jsonl names them.")
    unpaired = int((tasks["n"] - tasks["n_paired"]).sum()) if "n_paired" in tasks else 0
    if unpaired:
        notes.append(f"{unpaired} samples have no baseline in their run: they count in scores, not in ratios.")
    return notes


def run_notes(
    runs: Sequence[Run], records: Sequence[Sequence[Record]] | None = None, joined: bool = False
) -> list[str]:
    """What whole runs need said: shards or records that are missing, other code halfway, a drifting machine.

    Args:
        records: of each run, under the names of its group; None: as they are.
        joined: runs of one configuration stand together, whatever measured them, and so do their shards.
    """
    notes = []
    for run in runs:
        name = ", ".join(folder.name for folder in run.folders)
        if not run.records:
            notes.append(f"{name} holds no record and is left out.")
        elif not run.finished:
            notes.append(f"{name} is unfinished: samples may be missing.")
        together = [other for other in runs if joined and other.but_for_shards == run.but_for_shards] or [run]
        if missing := missing_shards([shard for other in together for shard in other.shards]):
            notes.append(f"{name} lacks the shards {', '.join(missing)}.")
        for entry in run.provenance.get("resumed") or ():
            changed = [key for key in ("commit", "libraries", "hardware") if key in entry]
            if changed:
                what = " and ".join({"commit": "code"}.get(key, key) for key in changed)
                notes.append(f"{name} went on with other {what} after {entry.get('after_records')} records.")
        drift = baseline_drift(run.records)
        if drift is not None and abs(drift) > DRIFT_WORTH_TELLING:
            notes.append(
                f"baseline_drift: the baseline's TTFT changed by {drift:+.0%} between the first and last quarter of "
                f"{name}; its speedups are less certain than their bounds say."
            )
    if repeated := repeated_baselines(records or [run.records for run in runs]):
        notes.append(
            f"The baselines of {repeated} samples were measured in several runs; their row holds the first run's, and "
            "each method is paired with its own run's."
        )
    return notes
