"""One table or figure in one command: its sweep, then its artefact. The scripts in experiments/ call this."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lazybench.command_line import register_methods
from lazybench.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]
CONF = PROJECT / "conf"
SIZES = ("smoke", "mini", "full")


def run_experiment(experiment: str, arguments: Sequence[str]) -> int:
    """Run ``experiment`` at a size and build its artefact in results/artefacts/<experiment>-<size>.

    Args:
        experiment: a file of conf/experiment.
        arguments: the size, then overrides as ``run.py`` takes them (``-m`` and launchers included).

    Returns:
        0 done, 1 some samples or jobs failed (the artefact holds the rest), 2 bad input.
    """
    size, *overrides = arguments or [""]
    if size not in SIZES:
        print(
            f"lazybench: size {size!r} is not one of {', '.join(SIZES)}, as in {experiment}.py smoke", file=sys.stderr
        )
        return UserError.exit_code
    overrides = [f"experiment={experiment}", f"size={size}", *overrides]
    code = _python(str(PROJECT / "run.py"), *overrides)
    if code not in (0, 1):
        return code
    folders = [folder for folder in run_folders(overrides) if (folder / "samples.jsonl").exists()]
    if not folders:
        return code or 1
    target = Path("results/artefacts") / f"{experiment}-{size}"
    report = _python("-m", "lazybench.report", *map(str, folders), "--out", str(target), "--only", experiment)
    return report or code


def run_folders(overrides: Sequence[str]) -> list[Path]:
    """Where each job of a sweep puts its run: the folder follows from the configuration.

    Args:
        overrides: as on run.py's command line; ``model=a,b`` makes two jobs.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from lazybench.config import run_config

    register_methods(CONF)
    parsed = OverridesParser.create().parse_overrides([text for text in overrides if not text.startswith("-")])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    with initialize_config_dir(str(CONF), version_base=None):
        folders = [run_config(compose("config", job), CONF).out for job in jobs]
    return list(dict.fromkeys(folders))


def _python(*arguments: str) -> int:
    """A process of its own: Hydra runs once in a process."""
    return subprocess.run([sys.executable, *arguments], check=False).returncode
