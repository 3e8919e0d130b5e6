"""``python -m lazybench.report.leaderboard_command FOLDER...``: methods at matched speeds, and who beats whom."""

from __future__ import annotations

import argparse
import shlex
import sys

from lazybench.errors import command
from lazybench.pruning.settings import path_of
from lazybench.report.where import HELP

JOIN = (
    "runs that differ in this stand in the same rows: code,hardware for shards of one experiment from different nodes, "
    "or a new method beside what an earlier version measured; a note says so"
)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m lazybench.report.leaderboard_command", description=__doc__)
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="holds runs, at any depth")
    parser.add_argument("--out", type=path_of, help="where to write; default: leaderboard/ in the first folder")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=HELP)
    parser.add_argument("--join", default="", metavar="NAME,...", help=JOIN)
    parser.add_argument("--speeds", type=_speeds, metavar="1.5,2,3", help="the speeds to match; default: 1.5,2,3")
    options = parser.parse_args(arguments)
    from lazybench.report import make_folder
    from lazybench.report.leaderboard import SPEEDS
    from lazybench.report.leaderboard_files import write_leaderboard
    from lazybench.report.results import load

    results = load(options.folders, options.where, [name for name in options.join.split(",") if name])
    speeds = options.speeds or SPEEDS
    out = options.out or options.folders[0] / "leaderboard"
    make_folder(out)
    called = f"python -m lazybench.report.leaderboard_command {shlex.join(arguments)}"
    write_leaderboard(results, out, called, speeds)
    print((out / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"table, comparisons, page and figure: {out}")
    return 0


def _speeds(text: str) -> tuple[float, ...]:
    speeds = tuple(sorted(float(part) for part in text.split(",")))
    if speeds[0] <= 0:
        raise ValueError
    return speeds


if __name__ == "__main__":
    sys.exit(main())
