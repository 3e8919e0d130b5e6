"""One table or figure of the paper in one command: its sweep, then its artefact.

python -m lazybench.experiment fig5 mini [overrides of run.py]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lazybench.errors import UserError, unknown_name

ARTEFACTS = ("table1", "table2", "fig1", "fig2", "fig5", "fig6", "fig7")
SIZES = ("smoke", "mini", "full")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment at a size and build its artefact in results/artefacts/<experiment>-<size>.

    Args:
        arguments: the experiment, the size, then overrides as ``run.py`` takes them (``-m`` and launchers included).

    Returns:
        0 done, 1 some samples or jobs failed (the artefact holds the rest), 2 bad input.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"lazybench: {error}", file=sys.stderr)
        return error.exit_code


def _run(arguments: list[str]) -> int:
    if len(arguments) < 2:
        raise UserError(f"which one, and at which size? One of {', '.join(ARTEFACTS)}, then one of {', '.join(SIZES)}")
    experiment, size, *overrides = arguments
    if experiment not in ARTEFACTS:
        raise unknown_name("experiment", experiment, ARTEFACTS)
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    overrides = [f"experiment={experiment}", f"size={size}", *overrides]
    code = _python("-m", "lazybench", "run", *overrides)
    if code not in (0, 1):
        return code
    from lazybench.sweep import run_folders

    folders = [folder for folder in run_folders(overrides) if (folder / "samples.jsonl").exists()]
    if not folders:
        return code or 1
    target = Path("results/artefacts") / f"{experiment}-{size}"
    report = _python("-m", "lazybench.report", *map(str, folders), "--out", str(target), "--only", experiment)
    return report or code


def _python(*arguments: str) -> int:
    """A process of its own: Hydra runs once in a process."""
    return subprocess.run([sys.executable, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
