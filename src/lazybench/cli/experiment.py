"""One table or figure of the paper in one command: its runs, then its artefact.

lazybench experiment fig5 mini [overrides of run.py, -m and launchers included]
"""

from __future__ import annotations

import sys
from pathlib import Path

from lazybench.cli.main import measure
from lazybench.cli.sweep import measured
from lazybench.errors import UserError, command, unknown_name

ARTEFACTS = ("table1", "table2", "fig1", "fig2", "fig5", "fig6", "fig7")
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
    if {"-h", "--help"} & set(given):
        print(f"{__doc__}\nexperiments: {' '.join(ARTEFACTS)}; sizes: {' '.join(SIZES)}")
        return 0
    if len(given) < 2:
        raise UserError(f"which one, and at which size? One of {', '.join(ARTEFACTS)}, then one of {', '.join(SIZES)}")
    experiment, size, *more = given
    if experiment not in ARTEFACTS:
        raise unknown_name("experiment", experiment, ARTEFACTS)
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    overrides = sorted([f"experiment={experiment}", f"size={size}", *more], key=lambda text: not text.startswith("-"))
    code = measure(overrides)  # argparse wants options first
    folders = measured()
    if code not in (0, 1) or not folders:
        return code
    from lazybench.report.__main__ import main as report  # imports pandas, which takes seconds

    target = Path("results/artefacts") / f"{experiment}-{size}"
    return report([*map(str, folders), "--out", str(target), "--only", experiment]) or code
