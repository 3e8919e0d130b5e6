"""The live display of a run: what runs now, records done, time left.

It draws when it is told something, between measurements: no thread of it runs beside the clock.
"""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from lazybench.run.record import Record


class Progress:
    """A bar on standard error; where that is no terminal, a line now and then instead."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=34)),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
            auto_refresh=False,  # else a thread of rich's draws ten times a second while a method is timed
        )
        self.console = console
        self.row = self.bar.add_task("starting", total=total, left="?")
        self.total, self.count = total, 0
        self.measured = 0  # by this process
        self.began: float | None = None  # when it began to

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, task: str, what: str) -> None:
        """Say what is running now."""
        self.began = self.began or time.monotonic()
        self.bar.update(self.row, description=f"{task} {what}", refresh=True)

    def advance(self, record: Record, earlier: bool = False) -> None:
        """One sample of one method is done; ``earlier``: by another process, which took none of this one's time."""
        self.count += 1
        self.measured += not earlier
        left = self._left()
        self.bar.update(self.row, advance=1, left=left, refresh=True)
        told = self.count in (1, self.total) or self.count % max(1, self.total // 10) == 0
        if told and not self.console.is_terminal:
            line = f"{self.count}/{self.total} {record.task} {record.method}, {left} left"
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _left(self) -> str:
        """Hours, minutes and seconds, at the pace of the records measured by this process."""
        if not self.measured or self.began is None:
            return "?"
        pace = (time.monotonic() - self.began) / self.measured
        return str(timedelta(seconds=round(pace * (self.total - self.count))))
