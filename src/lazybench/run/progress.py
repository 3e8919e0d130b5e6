"""The live display of a run: task, method, samples done, time left, running speedup and score.

It draws when it is told something, between measurements: no thread of it runs beside the clock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean, median
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
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
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            auto_refresh=False,  # else a thread of rich's draws ten times a second while a method is timed
        )
        self.console = console
        self.row = self.bar.add_task("starting", total=total)
        self.total, self.count = total, 0
        self.ttft_s: dict[Method, dict[tuple[str, str, int], float]] = defaultdict(dict)  # by task, sample and repeat
        self.scores: dict[Method, list[float]] = defaultdict(list)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def show(self, task: str, method: str) -> None:
        """Say what is running now."""
        self.bar.update(self.row, description=f"{task} {method}", refresh=True)

    def advance(self, record: Record) -> None:
        """One sample of one method is done, now or in an earlier run."""
        self.count += 1
        method = record.method, record.setting
        if record.ttft_s is not None:
            self.ttft_s[method][record.task, record.sample_id, record.repeat] = record.ttft_s
        if record.score is not None:
            self.scores[method].append(record.score)
        self.bar.running = self._running()
        self.bar.update(self.row, advance=1, refresh=True)
        told = self.count in (1, self.total) or self.count % max(1, self.total // 10) == 0
        if told and not self.console.is_terminal:
            line = f"{self.count}/{self.total} {record.task} {record.method} {self.bar.running}"
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)

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
