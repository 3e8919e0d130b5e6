"""One table or figure of the paper in one command: its sweep, then its artefact.

python -m lazybench.cli.experiment fig5 mini [overrides of run.py]
python -m lazybench.cli.experiment quality mini [shards=2]        the leaderboard, its samples shared out to two processes
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lazybench.errors import UserError, unknown_name
from lazybench.run.entry import command

ARTEFACTS = ("table1", "table2", "fig1", "fig2", "fig5", "fig6", "fig7")
QUALITY = "quality"  # what it builds is the leaderboard
SIZES = ("smoke", "mini", "full")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment at a size and build its artefact in results/artefacts/<experiment>-<size>.

    Args:
        arguments: the experiment, the size, then overrides as ``run.py`` takes them (``-m`` and launchers included).

    Returns:
        0 done, 1 some samples or jobs failed (the artefact holds the rest), 2 bad input.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(f"{__doc__}\nexperiments: {' '.join((*ARTEFACTS, QUALITY))}; sizes: {' '.join(SIZES)}")
        return 0
    return _run(given)


def _run(arguments: list[str]) -> int:
    if len(arguments) < 2:
        raise UserError(
            f"which one, and at which size? One of {', '.join((*ARTEFACTS, QUALITY))}, then one of {', '.join(SIZES)}"
        )
    experiment, size, *overrides = arguments
    if experiment not in (known := (*ARTEFACTS, QUALITY)):
        raise unknown_name("experiment", experiment, known)
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    # on a CPU alone: a model for a GPU is seldom small enough to stand there twice
    shards = 2 if experiment == QUALITY and size != "full" else 1
    overrides = _shared_out([f"experiment={experiment}", f"size={size}", *overrides], shards)
    code = _python("-m", "lazybench", "run", *overrides)
    if code not in (0, 1):
        return code
    from lazybench.cli.sweep import run_folders

    folders = [folder for folder in run_folders(overrides) if (folder / "samples.jsonl").exists()]
    if not folders:
        return code if "dry_run=true" in overrides else code or 1
    target = Path("results/artefacts") / f"{experiment}-{size}"
    builder = ("leaderboard",) if experiment == QUALITY else ("report", "--only", experiment)
    report = _python("-m", f"lazybench.{builder[0]}", *map(str, folders), "--out", str(target), *builder[1:])
    return report or code


def _shared_out(overrides: list[str], shards: int) -> list[str]:
    """``shards=2`` as a sweep of two shards, two processes of this machine at a time.

    Args:
        shards: where the overrides name neither it nor a shard.

    Raises:
        UserError: it is no whole number from 1.
    """
    named = [text.removeprefix("shards=") for text in overrides if text.startswith("shards=")]
    overrides = [text for text in overrides if not text.startswith("shards=")]
    if named and not (named[-1].isdecimal() and int(named[-1])):
        raise UserError(
            f"shards={named[-1]} must be a whole number of at least 1: how many processes share the samples"
        )
    own = any(text.startswith(("shard=", "-m", "--multirun", "out=")) for text in overrides)
    count = int(named[-1]) if named else 1 if own else shards
    if count == 1:
        return sorted(overrides, key=lambda text: not text.startswith("-"))  # argparse wants options first
    if own:
        raise UserError(f"shards={count} makes a sweep of its own: leave out -m, shard= and out= (tag=NAME names it)")
    parts = ",".join(f"{index}/{count}" for index in range(count))
    return ["-m", "hydra/launcher=local", f"hydra.launcher.n_jobs={count}", f"shard={parts}", *overrides]


def _python(*arguments: str) -> int:
    """A process of its own: Hydra runs once in a process."""
    return subprocess.run([sys.executable, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
