"""What a table must say in words: how to read it, what its rows leave out, what makes its numbers less certain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas

from lazybench.report.frame import baseline_drift, superseded
from lazybench.report.names import category_rows, short_names, task_title, timed
from lazybench.report.statistics import LEAST_SAMPLES, RANGE, Estimate, significant
from lazybench.store.reading import Run, missing_shards

DRIFT_WORTH_TELLING = 0.10
MOST_LINES = 6  # of a run in plain words: more say less than their table


def reading_notes(summary: pandas.DataFrame) -> list[str]:
    """How to read the numbers: bounds and ratios, as far as the summary holds them."""
    kinds = [summary[name] for name in summary if str(name) == "bounds" or str(name).endswith("_bounds")]
    bounds = {kind for column in kinds for kind in column.dropna()}
    told = []
    if bounds - {RANGE}:
        told.append("[brackets]: 95% interval.")
    if RANGE in bounds:
        told.append(f"(parentheses), below {LEAST_SAMPLES} samples or with a task of one: {RANGE}, no interval.")
    if "score" in summary:
        told.append("Score: 0 to 100.")
    if summary["fidelity_top1"].notna().any():
        told.append("Same token: how often the method's next token is the baseline's, along the baseline's own answer.")
    if timed(summary):
        told.append(
            "TTFT: time to first token, the median. TTFT speedup: baseline over method, the median of the paired "
            "ratios; ?: difference not significant. Decoding step x: method over baseline, above 1 is slower."
        )
    return [" ".join([*told, "FLOPs ratio: FLOPs of the plain prefill over the method's."])]


def row_notes(summary: pandas.DataFrame) -> list[str]:
    """What single rows need said: the engine's own gain, truncated and failed samples."""
    notes = []
    for _, row in category_rows(summary).iterrows():
        whole = row["method"] == "lazyllm" and row["prompt_tokens_computed"] == row["flops_ratio"] == 1
        if whole and row["ttft_speedup"] > 1:
            notes.append(
                f"On {task_title(row['task'], row['category'], row['setting'])} the engine with nothing pruned has a "
                f"TTFT speedup of {row['ttft_speedup']:.2f}x by itself: what pruning adds is a method's over that."
            )
    tasks = summary[summary["level"] == "task"]
    if truncated := int(tasks.loc[tasks["method"] == "baseline", "truncated"].sum()):
        notes.append(f"{truncated} samples were longer than the prompt limit and lost their middle (truncated_from).")
    if failed := int(tasks["failed"].sum()):
        notes.append(f"{failed} records failed and are left out; samples.jsonl names them.")
    if unpaired := int((tasks["n"] - tasks["n_paired"]).sum()):
        notes.append(f"{unpaired} samples have no baseline in their run: they count in scores, not in ratios.")
    return notes


def run_notes(runs: Sequence[Run], records: pandas.DataFrame) -> list[str]:
    """What whole runs need said: missing shards or records, several commits or machines, a drifting machine.

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
        for entry in run.provenance.get("resumed") or ():
            if changed := [key for key in ("commit", "libraries", "hardware") if key in entry]:
                what = " and ".join({"commit": "code"}.get(key, key) for key in changed)
                notes.append(f"{run.path.name} went on with other {what} after {entry.get('after_records')} records.")
        drift = baseline_drift(run.records)
        if drift is not None and abs(drift) > DRIFT_WORTH_TELLING:
            notes.append(
                f"baseline_drift: the baseline's TTFT changed by {drift:+.0%} between the first and last quarter of "
                f"{run.path.name}; its speedups are less certain than their bounds say."
            )
    for shards in of_one_configuration.values():
        if missing := missing_shards([run.shard for run in shards]):
            notes.append(f"{', '.join(run.path.name for run in shards)}: missing shards {', '.join(missing)}.")
    for (old, new), count in superseded(records).items():
        notes.append(f"{count} records of {_told(runs, old)} stand in {_told(runs, new)} too: the newer ones count.")
    commits = dict.fromkeys(str(record.commit)[:7] for run in runs for record in run.records if record.commit)
    if len(commits) > 1:
        notes.append(f"Records of commits {', '.join(commits)}.")
    machines = dict.fromkeys(machine(run) for run in runs if any(record.ttft_s for record in run.records))
    if len(machines) > 1:
        notes.append(f"Times of several machines ({'; '.join(machines)}): each method is paired within its own run.")
    return notes


def plain_words(summary: pandas.DataFrame) -> list[str]:
    """``LazyLLM: first token 1.5x sooner, 96% of the plain model's tokens (n=3)``, the fastest first.

    Of one model on one category or task alone; where there are several, and without a clock, nothing.
    """
    rows = category_rows(summary) if len(summary) else summary
    if not len(rows) or not timed(rows) or len(rows.groupby(["model", "category", "task", "setting"])) > 1:
        return []
    names = short_names(rows)
    rows = rows[(rows["method"] != "baseline") & rows["ttft_speedup"].notna()]
    lines = []
    for _, row in rows.sort_values("ttft_speedup", ascending=False).iterrows():
        speedup = row["ttft_speedup"]
        ratio = max(speedup, 1 / speedup)
        told = f"first token {ratio:.{1 if ratio >= 1.1 else 2}f}x {'sooner' if speedup >= 1 else 'later'}"
        if not significant(Estimate(speedup, row["ttft_speedup_low"], row["ttft_speedup_high"])):
            told = "TTFT difference not significant"
        if pandas.notna(row["fidelity_top1"]):
            told += f", {100 * row['fidelity_top1']:.0f}% of the plain model's tokens"
        few = f" (n={row['n']})" if row["n"] < LEAST_SAMPLES else ""
        lines.append(f"{names[row['method'], row['params']]}: {told}{few}")
    return lines if len(lines) <= MOST_LINES else []


def machine(run: Run) -> str:
    """Its GPUs, or its processor."""
    hardware = run.provenance.get("hardware") or {}
    return ", ".join(hardware.get("gpus") or [str(hardware.get("cpu") or "?")])


def _told(runs: Sequence[Run], place: int) -> str:
    """A run's folder; with the one above it where another has the same name."""
    path, names = runs[place].path, [run.path.name for run in runs]
    return path.name if names.count(path.name) == 1 else str(Path(path.parent.name) / path.name)
