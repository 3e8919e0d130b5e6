"""What a table must say in words: how to read it, what makes its numbers less certain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas

from lazybench.report.frame import superseded
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.summary import category_rows
from lazybench.report.text import task_title
from lazybench.run.reading import Run, missing_shards

READING = {  # by the column that it explains
    "n": f"[brackets]: 95% interval, from {LEAST_SAMPLES} samples on.",
    "score": "Score: 0 to 100.",
    "fidelity_top1": "Same token: how often the method's next token is the baseline's, along the baseline's answer.",
    "ttft_speedup": "TTFT: time to first token, the median; its speedup: baseline over method, the median of the "
    "paired ratios; ?: TTFT difference not significant. Decoding step x: method over baseline, above 1 is slower.",
    "flops_ratio": "FLOPs ratio: FLOPs of the plain prefill over the method's.",
}


def summary_notes(summary: pandas.DataFrame) -> list[str]:
    """How to read the columns that the summary fills; the engine's own gain, truncated and failed samples."""
    notes = [" ".join(told for name, told in READING.items() if name in summary and summary[name].notna().any())]
    if summary["n"].max() < LEAST_SAMPLES:
        notes.append(f"A demonstration: {summary['n'].max()} samples are too few for a claim.")
    for _, row in category_rows(summary).iterrows():
        whole = row["method"] == "lazyllm" and row["prompt_tokens_computed"] == row["flops_ratio"] == 1
        if whole and row["ttft_speedup"] > 1:
            notes.append(
                f"On {task_title(row['task'], row['category'], row['setting'])} the engine with nothing pruned has a "
                f"TTFT speedup of {row['ttft_speedup']:.2f}x by itself: what pruning adds is a method's over that."
            )
    tasks = summary[summary["level"] == "task"]
    counts = {
        "samples were longer than the prompt limit and lost their middle (truncated_from).": tasks.loc[
            tasks["method"] == "baseline", "truncated"
        ],
        "records failed and are left out; samples.jsonl names them.": tasks["failed"],
        "samples have no baseline in their run: they count in scores, not in ratios.": tasks["n"] - tasks["n_paired"],
    }
    return notes + [f"{column.sum()} {told}" for told, column in counts.items() if column.sum()]


def run_notes(runs: Sequence[Run], records: pandas.DataFrame) -> list[str]:
    """What whole runs need said: missing shards or records, several commits or machines.

    Args:
        records: of these runs, from ``records_frame``.
    """
    notes, of_one_configuration = [], defaultdict(list)
    for run in runs:
        of_one_configuration[str({**run.config, "shard": None})].append(run)
        if not run.records:
            notes.append(f"{run.path.name} holds no record and is left out.")
        elif not run.finished:
            notes.append(f"{run.path.name} is unfinished: samples may be missing.")
    for shards in of_one_configuration.values():
        if missing := missing_shards([run.shard for run in shards]):
            notes.append(f"{', '.join(run.path.name for run in shards)}: missing shards {', '.join(missing)}.")
    for (old, new), count in superseded(records).items():
        notes.append(f"{count} records of {runs[old].path} stand in {runs[new].path} too: the newer ones count.")
    commits = dict.fromkeys(str(record.commit)[:7] for run in runs for record in run.records if record.commit)
    if len(commits) > 1:
        notes.append(f"Records of commits {', '.join(commits)}.")
    machines = dict.fromkeys(machine(run) for run in runs if any(record.ttft_s for record in run.records))
    if len(machines) > 1:
        notes.append(f"Times of several machines ({'; '.join(machines)}): each method is paired within its own run.")
    return notes


def machine(run: Run) -> str:
    """Its GPUs, or its processor."""
    hardware = run.provenance.get("hardware") or {}
    return ", ".join(map(str, hardware.get("gpus") or [hardware.get("cpu") or "?"]))
