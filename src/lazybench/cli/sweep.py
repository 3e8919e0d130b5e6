"""A sweep as a whole: how its jobs ended, where each puts its run, and the one table of all of them."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed, register
from lazybench.errors import UserError

codes: dict[str, int] = {}  # of this command's jobs: overrides to exit code


def note_job(overrides: Sequence[str], code: int) -> None:
    """Keep how a job ended: told by itself, or by the sweeper for one in a process of its own."""
    codes[" ".join(overrides)] = code


def run_folders(overrides: Sequence[str]) -> list[Path]:
    """Where each job of a sweep puts its run; a job that bad input ended has none.

    Args:
        overrides: as on run.py's command line; ``model=a,b`` makes two jobs.
    """
    register()
    sweep = any(option in ("-m", "--multirun") for option in overrides)
    texts = prepare([text for text in overrides if not text.startswith("-")])
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(texts), max_batch_size=None)
    folders = []
    for job in jobs:
        with suppress(UserError):
            folders.append(run_config(composed(job), sweep).out)
    return list(dict.fromkeys(folders))


def print_end(arguments: Sequence[str]) -> None:
    """One table of every run that measured anything (a single run has printed its own), and which jobs failed."""
    measured = [folder for folder in run_folders(arguments) if (folder / "samples.jsonl").exists()]
    if len(measured) > 1:
        from lazybench.report.results import load

        above = Path(os.path.commonpath(measured))
        load(measured).write_summary(above)
        table = (above / "table.md").read_text(encoding="utf-8")
        print(f"\nall {len(measured)} runs together ({above / 'table.md'}):\n\n{table}")
    failed = [f"{job} (exit code {code})" for job, code in codes.items() if code]
    if failed:
        print(f"lazybench: {len(failed)} of {len(codes)} jobs failed: {'; '.join(failed)}", file=sys.stderr)


def take_own_gpu() -> None:
    """In a worker of ``hydra/launcher=joblib``, before torch starts: worker number i takes GPU number i, round and
    round. Joblib itself would leave all of them on the first one.
    """
    worker = re.search(r"Loky.*?(\d+)$", multiprocessing.current_process().name)
    if worker is None or "LAZYBENCH_GPU" in os.environ:  # chosen by an earlier job of this worker
        return
    if gpus := _gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["LAZYBENCH_GPU"] = gpus[(int(worker[1]) - 1) % len(gpus)]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return []
    return re.findall(r"^GPU (\d+):", listing, flags=re.MULTILINE)
