"""One table or figure of the paper in one command: its runs, then its artefact.

lazybench experiment fig5 mini [overrides of run.py, -m and launchers included]
lazybench experiment quality mini        the leaderboard
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from lazybench.cli.main import measure
from lazybench.cli.sweep import measured
from lazybench.errors import UserError, command, unknown_name

ARTEFACTS = ("table1", "table2", "fig1", "fig2", "fig5", "fig6", "fig7")
QUALITY = "quality"  # what it builds is the leaderboard
SIZES = ("smoke", "mini", "full")


@command
def main(arguments: list[str] | None = None) -> int:
    """Run an experiment at a size and build its artefact in results/artefacts/<experiment>-<size>.

    Args:
        arguments: the experiment, the size, then overrides as ``run.py`` takes them.

    Returns:
        0 done, 1 some samples or jobs failed (the artefact holds the rest), 2 bad input.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = (*ARTEFACTS, QUALITY)
    if {"-h", "--help"} & set(given):
        print(f"{__doc__}\nexperiments: {' '.join(known)}; sizes: {' '.join(SIZES)}")
        return 0
    if len(given) < 2:
        raise UserError(f"which one, and at which size? One of {', '.join(known)}, then one of {', '.join(SIZES)}")
    experiment, size, *more = given
    if experiment not in known:
        raise unknown_name("experiment", experiment, known)
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    overrides = sorted([f"experiment={experiment}", f"size={size}", *more], key=lambda text: not text.startswith("-"))
    code = measure(overrides)  # argparse wants options first
    folders = measured()
    if code not in (0, 1) or not folders:
        return code
    module = "leaderboard" if experiment == QUALITY else "__main__"
    target = Path("results/artefacts") / f"{experiment}-{size}"
    only = [] if experiment == QUALITY else ["--only", experiment]
    report = import_module(f"lazybench.report.{module}").main
    return int(report([*map(str, folders), "--out", str(target), *only])) or code
