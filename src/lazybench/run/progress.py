"""The live display of a run: what runs now, records done, time left, running speedup and score.

It draws when it is told something, between measurements: no thread of it runs beside the clock.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from statistics import fmean, median
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from lazybench.methods import label
from lazybench.run.record import Record

Method = tuple[str, str]  # name and settings


class Progress:
    """A bar on standard error, the running numbers below it; where that is no terminal, a line now and then instead."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self.bar = _BarAndNumbers(
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
        self.began: tuple[float, int] | None = None  # when the first record was not there yet, and how many were
        self.ttft_s: dict[Method, dict[tuple[str, str, int], float]] = defaultdict(dict)  # by task, sample and repeat
        self.scores: dict[Method, list[float]] = defaultdict(list)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, task: str, what: str) -> None:
        """Say what is running now."""
        self.began = self.began or (time.monotonic(), self.count)
        self.bar.update(self.row, description=f"{task} {what}", refresh=True)

    def advance(self, record: Record) -> None:
        """One sample of one method is done, now or in an earlier run."""
        self.count += 1
        method = record.method, record.setting
        if record.ttft_s is not None:
            self.ttft_s[method][record.task, record.sample_id, record.repeat] = record.ttft_s
        if record.score is not None:
            self.scores[method].append(record.score)
        self.bar.running = self._running()
        left = self._left()
        self.bar.update(self.row, advance=1, left=left, refresh=True)
        told = self.count in (1, self.total) or self.count % max(1, self.total // 10) == 0
        if told and not self.console.is_terminal:
            line = f"{self.count}/{self.total} {record.task}, {left} left: {self.bar.running or record.method}"
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _left(self) -> str:
        """Hours, minutes and seconds, at the pace of the records measured by this process."""
        began, before = self.began or (0.0, self.count)
        if self.count == before:
            return "?"
        pace = (time.monotonic() - began) / (self.count - before)
        return str(timedelta(seconds=round(pace * (self.total - self.count))))

    def _running(self) -> str:
        """The baseline's median TTFT, each method's median speedup over the samples of both, and mean scores."""
        parts = []
        plain = next((times for (method, _), times in self.ttft_s.items() if method == "baseline"), {})
        methods = [method for method, _ in self.ttft_s]
        for (method, params), times in self.ttft_s.items():
            text = method if methods.count(method) == 1 else f"{method} {label(method, json.loads(params))}"
            ratios = [plain[sample] / seconds for sample, seconds in times.items() if sample in plain]
            if method == "baseline":
                text += f" {median(times.values()):.2f} s"
            elif ratios:
                text += f" {median(ratios):.2f}x"
            if scores := self.scores[method, params]:
                text += f" score {100 * fmean(scores):.1f}"
            parts.append(text)
        return " | ".join(parts)


class _BarAndNumbers(Bar):
    """rich's bar with the running numbers below it: they never push bar, count and time left out."""

    running = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.running)
