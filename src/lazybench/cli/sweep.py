"""A sweep as a whole: where each of its jobs puts its run, and the one table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazybench.cli.choices import prepare
from lazybench.cli.groups import composed, register


def run_folders(overrides: Sequence[str]) -> list[Path]:
    """Where each job of a sweep puts its run: the folder follows from the configuration.

    Args:
        overrides: as on run.py's command line; ``model=a,b`` makes two jobs.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from lazybench.run.config import run_folder

    register()
    sweep = any(option in ("-m", "--multirun") for option in overrides)
    texts = prepare([text for text in overrides if not text.startswith("-")])
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(texts), max_batch_size=None)
    return list(dict.fromkeys(run_folder(composed(job), sweep) for job in jobs))


def print_table(folders: Sequence[Path]) -> None:
    """The summary of every run that measured anything, together; a single run has printed its own."""
    from lazybench.report.results import load
    from lazybench.report.tables import run_table

    measured = [folder for folder in folders if (folder / "samples.jsonl").exists()]
    if len(measured) > 1:
        results = load(measured)
        print(f"\nall {len(measured)} runs together:\n\n{run_table(results.summary, results.notes)}")
