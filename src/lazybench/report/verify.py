"""``python -m lazybench verify FOLDER...``: do the published numbers follow from the raw records and the data?

For each run at or below the folders, and each of a campaign file, is computed again what can be: which records are
there, so that none was left out; every score, from the prediction and the data's answers; every FLOPs ratio, from the
tokens that were computed. The other columns are named. With ``--remeasure N`` some records are measured anew, where
model and data are at hand. Nothing that a folder holds is run.
Exit code 0: all that was computed again matches; 1: something does not, and is named; 2: bad input, or what would
decide is not at hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lazybench.errors import Parser, UserError, command, one_line, refuse
from lazybench.pruning.settings import path_of
from lazybench.report.checks import OF_THE_MACHINE, Check, check_flops, check_records, measured_columns
from lazybench.report.data_at_hand import config_of
from lazybench.run.reading import Run, find_runs, read_runs

SHOWN = 10  # mismatches printed of each kind


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = Parser("python -m lazybench verify", __doc__)
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="runs or campaigns, at any depth")
    parser.add_argument("--data-root", type=path_of, help="LongBench-schema JSONL files; default: as it was run")
    parser.add_argument("--remeasure", type=int, default=0, metavar="N", help="measure N records anew, drawn by chance")
    parser.add_argument("--model-path", type=path_of, help="the weights for --remeasure; default: as it was run")
    options = parser.parse_args(arguments)
    codes: list[int] = []
    for path in dict.fromkeys(path for root in options.folders for path in find_runs(root, may_lack=True) or [root]):
        try:
            codes += [_verify(run, options) for run in read_runs(path)]
        except UserError as error:
            codes.append(refuse(error))
    print(
        f"{len(codes)} runs, what was computed again: {codes.count(0)} match, {codes.count(1)} differ, "
        f"{codes.count(UserError.exit_code)} not checked, or not wholly"
    )
    return 1 if 1 in codes else max(codes)


def _verify(run: Run, options: argparse.Namespace) -> int:
    """Check one run, say what was found, and give its exit code."""
    checks = [("flops_ratio", check_flops(run))]
    try:
        config = config_of(run, options.data_root, options.model_path)
        checks += check_records(run, config).items()
        if options.remeasure > 0:
            from lazybench.report.remeasuring import remeasured  # with torch and the model's library

            checks += remeasured(run, config, options.remeasure).items()
    except UserError as error:
        checks.append(("all else", Check(not_checked=[f"not checked: {error}"])))
    print(f"{run.path}:")
    for name, check in checks:
        verdict = f": {'differ' if check.different else 'match'}" if check.compared or check.different else ""
        print(f"{name}: {check.compared} of {check.expected} {check.how}{verdict}")
        for line in [*check.different[:SHOWN], *check.not_checked]:
            print(f"  {one_line(line)}")
        if len(check.different) > SHOWN:
            print(f"  and {len(check.different) - SHOWN} more")
    rest = measured_columns(run).keys() - {name for name, check in checks if check.compared}
    for what, machines in (("not checked (--remeasure N measures N records anew)", False), ("nobody can check", True)):
        if told := sorted(name for name in rest if (name in OF_THE_MACHINE) == machines):
            print(f"{what}: {', '.join(told)}")
    if not run.finished:
        print("unfinished: the run has no `done` marker, so samples may still be missing")
    if any(check.different for _, check in checks):
        return 1
    return UserError.exit_code if any(check.not_checked for _, check in checks) else 0
