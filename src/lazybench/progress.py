"""The live display of a run: task, method, samples done, time left, running speedup and score."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lazybench.store.record import Record


class Progress:
    """A bar on standard error; where that is no terminal, a line now and then instead."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[running]}"),
            console=console,
            disable=not console.is_terminal,
            auto_refresh=False,  # rich would draw from a thread of its own, inside the clock
        )
        self.console = console
        self.row = self.bar.add_task("starting", total=total, running="")
        self.total, self.count = total, 0
        self.ttft_s: dict[tuple[str, str], list[float]] = defaultdict(list)  # by method and variant
        self.scores: dict[tuple[str, str], list[float]] = defaultdict(list)

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
        if record.ttft_s is not None:
            self.ttft_s[record.method, record.variant].append(record.ttft_s)
        if record.score is not None:
            self.scores[record.method, record.variant].append(record.score)
        self.bar.update(self.row, advance=1, running=self._running(), refresh=True)
        if not self.console.is_terminal and (self.count % max(1, self.total // 10) == 0 or self.count == self.total):
            line = f"{self.count}/{self.total} {record.task} {record.method} {self._running()}"
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _running(self) -> str:
        parts = []
        plain = next((times for (method, _), times in self.ttft_s.items() if method == "baseline"), None)
        methods = [method for method, _ in self.ttft_s]
        for (method, variant), times in self.ttft_s.items():
            text = method if methods.count(method) == 1 else f"{method} {variant}"
            if plain and method != "baseline":
                text += f" {fmean(plain) / fmean(times):.2f}x"
            if scores := self.scores[method, variant]:
                text += f" score {100 * fmean(scores):.1f}"
            parts.append(text)
        return " | ".join(parts)
