"""``python -m lazybench.report.verify FOLDER...``: do the published numbers follow from the raw records and the data?

For each run at or below the folders is computed again what can be: which records are there, so that none was left out;
every score, from the prediction and the data's answers; the columns that follow from others; the summary. Each column
is named with what was computed again of it; the others are named too. With ``--remeasure N`` some records are measured
anew, where model and data are at hand. Nothing that a folder holds is run. Exit code 0: all that was computed again
matches; 1: something does not, and is named; 2: bad input, or what would decide is not at hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Set
from pathlib import Path

from lazybench.errors import UserError, command, one_line, refuse
from lazybench.pruning.settings import path_of
from lazybench.report.checks import OF_THE_MACHINE, Check, check_columns, check_records, check_summary, measured_columns
from lazybench.run.reading import Run, find_runs, read_run

SHOWN = 10  # mismatches printed of each kind


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lazybench.report.verify", description="Computes runs' numbers again."
    )
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="a run, or results with runs below")
    parser.add_argument(
        "--data-root", type=path_of, help="folder of LongBench-schema JSONL files; default: as it was run"
    )
    parser.add_argument("--remeasure", type=int, default=0, metavar="N", help="measure N records anew, drawn by chance")
    parser.add_argument(
        "--model-path", type=path_of, help="the weights for --remeasure; default: where the run had them"
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
            codes.append(_verify(run, options))
    if len(codes) > 1:
        print(
            f"{len(codes)} runs, what was computed again: {codes.count(0)} match, {codes.count(1)} differ, "
            f"{codes.count(UserError.exit_code)} not checked, or not wholly"
        )
    return 1 if 1 in codes else max(codes)


def _verify(folder: Path, options: argparse.Namespace) -> int:
    """Check one run, say what was found, and give its exit code."""
    try:
        run = read_run(folder)
        summary = check_summary(run)
        records, scores = check_records(run, options.data_root)
        anew = _measured_anew(run, options)
    except UserError as error:
        return refuse(error)
    columns = check_columns(run)
    held, failed = measured_columns(run), sum(record.error is not None for record in run.records)
    also = f", {failed} of them failed" if failed else ""
    _tell("samples.jsonl", f"{records.compared} records of {records.expected} expected{also}", records)
    with_scores = {record.task for record in run.records if record.score is not None}
    scored = sum(record.error is None and record.task in with_scores for record in run.records)
    _tell("score", f"{scores.compared} of {scored} computed again" if scored else "none to compute again", scores)
    for name, check in columns.items():
        _tell(name, f"{check.compared} of {held.get(name, check.compared)} computed again from the record", check)
    _tell("summary.csv", f"{summary.compared} cells computed again from samples.jsonl", summary)
    for name, check in anew.items():
        _tell(name, f"{check.compared} measured anew" if check.compared else "none measured anew", check)
    seen = {name: max(part.get(name, Check()).compared for part in (columns, anew)) for name in held}
    seen["score"] = held.get("score", 0)  # its own line says of how many
    rest = {name: count - seen[name] for name, count in held.items() if count > seen[name]}
    _tell_unchecked("not checked (--remeasure N measures N records anew)", rest.keys() - {*OF_THE_MACHINE}, rest, held)
    _tell_unchecked("nobody can check", rest.keys() & {*OF_THE_MACHINE}, rest, held)
    if not run.finished:
        print("unfinished: the run has no `done` marker, so samples may still be missing")
    checks = [records, scores, summary, *columns.values(), *anew.values()]
    if any(check.different for check in checks):
        return 1
    return UserError.exit_code if any(check.not_checked for check in checks) else 0


def _tell_unchecked(what: str, names: Set[str], rest: dict[str, int], held: dict[str, int]) -> None:
    """The columns in the records' order; of how many records, where a part was checked."""
    told = [
        name if rest[name] == count else f"{name} ({rest[name]} of {count})"
        for name, count in held.items()
        if name in names
    ]
    if told:
        print(f"{what}: {', '.join(told)}")


def _measured_anew(run: Run, options: argparse.Namespace) -> dict[str, Check]:
    if options.remeasure < 1:
        return {}
    from lazybench.report.remeasuring import remeasured  # with torch and the model's library

    try:
        return remeasured(run, options.remeasure, options.data_root, options.model_path)
    except UserError as error:
        return {"--remeasure": Check(not_checked=[f"not checked: {error}"])}


def _tell(what: str, counted: str, check: Check) -> None:
    """One line, and one for each mismatch; what was compared matches or differs, the rest is not checked."""
    verdict = f": {'differ' if check.different else 'match'}" if check.compared or check.different else ""
    print(f"{what}: {counted}{verdict}")
    for line in [*check.different[:SHOWN], *check.not_checked]:
        print(f"  {one_line(line)}")
    if len(check.different) > SHOWN:
        print(f"  and {len(check.different) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
