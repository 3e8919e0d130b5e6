"""``python -m lazybench.verify RUN_FOLDER``: do the published numbers follow from the raw records and the data?

Three things are computed again from samples.jsonl: every score, from the prediction and the data's answers; which
samples are there, so that none was left out; and the summary. Exit code 0: all match; 1: something
does not, and is named; 2: bad input, or the data that would decide is not at hand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError
from lazybench.models.chat import postprocessor
from lazybench.store.reading import Run, read_run
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings, Task

if TYPE_CHECKING:
    import pandas

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
SHOWN = 10  # mismatches printed of each kind


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lazybench.verify", description="Computes a run's numbers again.")
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--data-root", type=Path, help="folder of LongBench-schema JSONL files; default: as it was run")
    options = parser.parse_args(arguments)
    try:
        run = read_run(options.run_folder)
        different_summary = check_summary(run)
        different_scores, unknown = check_scores(run, options.data_root)
    except UserError as error:
        print(f"lazybench: {error}", file=sys.stderr)
        return UserError.exit_code
    scored = sum(record.score is not None for record in run.records)
    _tell(f"scores ({scored} of {len(run.records)} records have one) and samples", different_scores)
    _tell("summary.csv", different_summary)
    if not run.finished:
        print("unfinished: the run has no `done` marker, so samples may still be missing")
    for line in unknown:
        print(f"lazybench: {line}", file=sys.stderr)
    if different_scores or different_summary:
        return 1
    return UserError.exit_code if unknown else 0


def check_scores(run: Run, data_root: Path | None = None) -> tuple[list[str], list[str]]:
    """Score every prediction again, and look for samples that were left out.

    Returns:
        What does not match, and what could not be decided because its data is not at hand; a line each.
    """
    different: list[str] = []
    unknown: list[str] = []
    for name in run.config["task"]["datasets"]:
        try:
            task = build_task(name, _data_settings(run.config, data_root))
            different += _check_task(run, task)
        except UserError as error:
            unknown.append(f"{name} is not verified: {error}")
    return different, unknown


def check_summary(run: Run) -> list[str]:
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
        return [f"summary.csv cannot be read: {' '.join(str(error).split())}"]
    if list(stored.columns) != list(anew.columns) or len(stored) != len(anew):
        return [f"summary.csv has {stored.shape} rows and columns, {anew.shape} anew; columns {list(anew.columns)}"]
    return [
        f"row {row + 1} ({_row_name(anew, row)}) {column}: {stored[column][row]} in the file, {anew[column][row]} anew"
        for row in range(len(anew))
        for column in anew.columns
        if not _equal(stored[column][row], anew[column][row])
    ]


def _check_task(run: Run, task: Task) -> list[str]:
    records = [record for record in run.records if record.task == task.name]
    noted = run.provenance.get("tasks", {}).get(task.name, {}).get("fingerprint")
    if noted != task.fingerprint:
        raise UserError(f"the data at hand ({task.source}, {task.fingerprint}) is not what was measured ({noted})")
    samples = {sample.sample_id: sample for sample in task.samples()}
    different: list[str] = []
    seen: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    clean = postprocessor(run.config["model"].get("chat_format", "none"))
    for record in records:
        seen[record.method, record.variant, record.repeat].add(record.sample_id)
        where = f"{task.name} {record.method} sample {record.sample_id} repeat {record.repeat}"
        if record.sample_id not in samples:
            different.append(f"{where}: the data has no such sample")
        elif record.score is not None:
            anew = task.score(clean(record.prediction), samples[record.sample_id])
            if not _equal(record.score, anew):
                different.append(f"{where}: score {record.score} in the file, {anew} anew")
    if not records:
        different.append(f"{task.name}: no record at all")
    for (method, variant, repeat), found in seen.items():
        if missing := sorted(samples.keys() - found):
            shown = ", ".join(missing[:SHOWN])
            different.append(f"{task.name} {method} {variant} repeat {repeat}: no record of {len(missing)} ({shown})")
    return different


def _data_settings(config: dict[str, Any], data_root: Path | None) -> DataSettings:
    root = data_root or config["data"].get("root")
    index, count = str(config.get("shard", "0/1")).split("/")
    return DataSettings(
        root=Path(root) if root else None,
        limit=config.get("limit"),
        seed=config.get("seed", 0),
        shard=(int(index), int(count)),
        parameters=config["task"].get("parameters") or {},
    )


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


def _tell(what: str, different: list[str]) -> None:
    print(f"{what}: {'differ' if different else 'match'}")
    for line in different[:SHOWN]:
        print(f"  {line}")
    if len(different) > SHOWN:
        print(f"  and {len(different) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
