"""``python -m lazybench.verify FOLDER...``: do the published numbers follow from the raw records and the data?

For each run at or below the folders three things are computed again from samples.jsonl: every score, from the
prediction and the data's answers; which records are there, so that none was left out; and the summary. What was
computed again is counted; what was not is named. Exit code 0: all of it matches; 1: something does not, and is named;
2: bad input, or the data that would decide is not at hand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.entry import command
from lazybench.errors import UserError, refuse
from lazybench.models.chat import postprocessor
from lazybench.report.data_at_hand import measured_task
from lazybench.store.reading import Run, find_runs, read_run
from lazybench.store.record import Record
from lazybench.tasks.base import Task
from lazybench.typed import path_of

if TYPE_CHECKING:
    import pandas

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
SHOWN = 10  # mismatches printed of each kind


@dataclass
class Check:
    """What was computed again of one kind, what does not match, and what could not be computed."""

    compared: int = 0
    expected: int = 0
    different: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lazybench.verify", description="Computes runs' numbers again.")
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="a run, or results with runs below")
    parser.add_argument(
        "--data-root", type=path_of, help="folder of LongBench-schema JSONL files; default: as it was run"
    )
    options = parser.parse_args(arguments)
    codes = []
    for folder in options.folders:
        try:
            runs = [folder] if not folder.is_dir() or (folder / "config.yaml").exists() else find_runs(folder)
        except UserError as error:
            runs = []
            codes.append(refuse(error))
        for run in runs:
            if len(options.folders) > 1 or runs != [folder]:
                print(f"{run}:")
            codes.append(_verify(run, options.data_root))
    if len(codes) > 1:
        print(
            f"{len(codes)} runs: {codes.count(0)} match, {codes.count(1)} differ, "
            f"{codes.count(UserError.exit_code)} not checked, or not wholly"
        )
    return 1 if 1 in codes else max(codes)


def _verify(folder: Path, data_root: Path | None) -> int:
    """Check one run, say what was found, and give its exit code."""
    try:
        run = read_run(folder)
        summary = check_summary(run)
        records, scores = check_records(run, data_root)
    except UserError as error:
        return refuse(error)
    with_scores = {record.task for record in run.records if record.score is not None}
    scored = sum(record.error is None and record.task in with_scores for record in run.records)
    failed = sum(record.error is not None for record in run.records)
    also = f", {failed} of them failed" if failed else ""
    _tell("samples.jsonl", f"{records.compared} records of {records.expected} expected{also}", records)
    _tell("scores", f"{scores.compared} of {scored} computed again" if scored else "none to compute again", scores)
    _tell("summary.csv", f"{summary.compared} cells computed again", summary)
    if not run.finished:
        print("unfinished: the run has no `done` marker, so samples may still be missing")
    if records.different or scores.different or summary.different:
        return 1
    return UserError.exit_code if records.not_checked or scores.not_checked else 0


def check_records(run: Run, data_root: Path | None = None) -> tuple[Check, Check]:
    """Look for records that were left out, and score every prediction again.

    Expected is a record of every sample of the data, method and repeat that the configuration asks for. Where the
    data is not at hand, the samples that any method has stand for it.
    """
    records, scores = Check(), Check()
    index, count = run.shards[0].split("/")
    shard = (int(index), int(count))
    for name in run.config["task"]["datasets"]:
        of_task = [record for record in run.records if record.task == name]
        try:
            task = measured_task(run, name, data_root, shard)
            samples = [sample.sample_id for sample in task.samples()]
            _score_again(run, task, of_task, scores)
        except UserError as error:
            samples = list(dict.fromkeys(record.sample_id for record in of_task))
            scores.not_checked.append(f"not checked: no data at hand for {name}: {error}")
            records.not_checked.append(f"not checked: whether {name} has more samples than {len(samples)}")
        _look_for(name, samples, of_task, run.config, records)
    return records, scores


def check_summary(run: Run) -> Check:
    """Build the summary anew from the records and compare it with the folder's, cell by cell.

    Raises:
        UserError: the folder has no summary.csv.
    """
    import pandas

    from lazybench.report.summary import summarise

    path = run.folders[0] / "summary.csv"
    if not path.is_file():
        raise UserError(f"{path.parent} holds no summary.csv; run its command again to write it")
    anew = pandas.read_csv(StringIO(summarise(run.records).to_csv(index=False)))  # as CSV rounds it
    try:
        stored = pandas.read_csv(path)
    except ValueError as error:
        return Check(different=[f"summary.csv cannot be read: {' '.join(str(error).split())}"])
    if list(stored.columns) != list(anew.columns) or len(stored) != len(anew):
        shapes = f"{stored.shape} rows and columns, {anew.shape} anew; columns {list(anew.columns)}"
        return Check(different=[f"summary.csv has {shapes}"])
    different = [
        f"row {row + 1} ({_row_name(anew, row)}) {column}: {stored[column][row]} in the file, {anew[column][row]} anew"
        for row in range(len(anew))
        for column in anew.columns
        if not _equal(stored[column][row], anew[column][row])
    ]
    return Check(anew.size, anew.size, different)


def _look_for(name: str, samples: list[str], records: list[Record], config: dict[str, Any], check: Check) -> None:
    """Name what is missing: of every method and repeat that was asked for, a record of every sample."""
    seen: dict[tuple[str, str], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        seen[record.method, record.variant][record.repeat].add(record.sample_id)
    asked = config.get("methods") or []
    if samples and len(seen) < len(asked):  # a shard may have none of a short dataset
        found = ", ".join(" ".join(key).strip() for key in seen) or "none"
        check.different.append(f"{name}: {len(asked)} methods were asked for, records are of {len(seen)}: {found}")
        check.expected += (len(asked) - len(seen)) * len(samples) * (config.get("repeats") or 1)
    for (method, variant), repeats in seen.items():
        for repeat in range(max(config.get("repeats") or 1, max(repeats) + 1)):
            here = repeats.get(repeat, set())
            where = " ".join(f"{name} {method} {variant}".split())
            check.expected += len(samples)
            check.compared += len(here & set(samples))
            check.different += [f"{where} repeat {repeat}: no record of sample {s}" for s in samples if s not in here]
            check.different += [f"{where} sample {s}: the data has no such sample" for s in here - set(samples)]


def _score_again(run: Run, task: Task, records: list[Record], check: Check) -> None:
    samples = {sample.sample_id: sample for sample in task.samples()}
    clean = postprocessor(run.config["model"].get("chat_format", "none"))
    if all(record.score is None for record in records):
        return  # a run without scores, or of random weights
    for record in records:
        if record.error is not None or record.sample_id not in samples:
            continue
        where = f"{task.name} {record.method} sample {record.sample_id} repeat {record.repeat}"
        if record.score is None:
            check.different.append(f"{where}: no score, though others of the task have one")
            continue
        anew = task.score(clean(record.prediction), samples[record.sample_id])
        check.compared += 1
        if not _equal(record.score, anew):
            check.different.append(f"{where}: score {record.score} in the file, {anew} anew")


def _row_name(summary: pandas.DataFrame, row: int) -> str:
    parts = [summary[name][row] for name in ("category", "task", "method", "variant") if name in summary]
    return " ".join(part for part in parts if isinstance(part, str))


def _equal(one: Any, other: Any) -> bool:
    try:
        first, second = float(one), float(other)
    except (TypeError, ValueError):
        return str(one) == str(other)
    both_missing = math.isnan(first) and math.isnan(second)
    return both_missing or math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=1e-12)


def _tell(what: str, counted: str, check: Check) -> None:
    """One line, and one for each mismatch; what was compared matches or differs, the rest is not checked."""
    verdict = f": {'differ' if check.different else 'match'}" if check.compared or check.different else ""
    print(f"{what}: {counted}{verdict}")
    for line in [*check.different[:SHOWN], *check.not_checked]:
        print(f"  {line}")
    if len(check.different) > SHOWN:
        print(f"  and {len(check.different) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
