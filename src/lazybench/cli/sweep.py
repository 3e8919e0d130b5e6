"""A sweep as a whole: how its jobs ended, and the one table of all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

Outcome = tuple[int, Path | None]  # of a job: its exit code and its run's folder
ended: dict[str, Outcome] = {}  # of this command's jobs, by overrides: told by themselves, or by the sweeper


def measured() -> list[Path]:
    """The folders of this command's jobs that hold records."""
    folders = dict.fromkeys(folder for _, folder in ended.values() if folder is not None)
    return [folder for folder in folders if (folder / "samples.jsonl").exists()]


def print_end() -> None:
    """One table of every run that measured anything, which is in a file too, and which jobs failed."""
    if len(folders := measured()) > 1:
        from lazybench.report.results import load

        above = Path(os.path.commonpath([folder.absolute() for folder in folders]))
        load(folders).write_summary(above)
        table = (above / "table.md").read_text(encoding="utf-8")
        print(f"\nall {len(folders)} runs together ({above / 'table.md'}):\n\n{table}")
    failed = [f"{job} (exit code {code})" for job, (code, _) in ended.items() if code]
    if failed:
        print(f"lazybench: {len(failed)} of {len(ended)} jobs failed: {'; '.join(failed)}", file=sys.stderr)
