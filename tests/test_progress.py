"""The display of a run: nothing of it runs beside the clock, its numbers pair by sample, and it fits its terminal."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from rich.console import Console
from store_driver import record

from lazybench.run.progress import Progress
from lazybench.run.record import Record


def timed(method: str, sample: str, ttft_s: float, score: float | None = None, **params: float) -> Record:
    return replace(record(0), method=method, params=params, sample_id=sample, ttft_s=ttft_s, score=score)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


def shown(progress: Progress) -> list[str]:
    """The display as a terminal of 100 columns has it."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(progress.bar.get_renderable())
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.usefixtures("terminal")
def test_no_thread_runs_beside_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with Progress(total=2) as progress:
        assert progress.console.is_terminal
        progress.show("qasper", "lazyllm")
        assert threading.active_count() == before
        drawn = capsys.readouterr().err
        assert "qasper lazyllm" in drawn  # drawn at once, by nobody but the caller
        progress.advance(timed("lazyllm", "a", 1.0))
        assert "1/2" in capsys.readouterr().err


def test_running_speedups_pair_by_sample() -> None:
    with Progress(total=4) as progress:
        progress.advance(timed("baseline", "short", 1.0))
        progress.advance(timed("lazyllm", "short", 0.5))
        progress.advance(timed("baseline", "long", 8.0))
        assert "lazyllm 2.00x" in progress.bar.running  # not (1 + 8) / 2 over 0.5
        progress.advance(timed("lazyllm", "long", 4.0))
        assert "lazyllm 2.00x" in progress.bar.running
        progress.advance(timed("static_pruning", "unpaired", 4.0))
        assert progress.bar.running.endswith("static_pruning")


@pytest.mark.usefixtures("terminal")
def test_bar_count_and_time_left_stay_whatever_the_methods_are_called() -> None:
    with Progress(total=20) as progress:
        for place in range(5):
            for method in ("baseline", "lazyllm"):
                settings = {"keep": place / 10} if method == "lazyllm" else {}
                progress.advance(timed(method, f"s{place}", 1.0, 0.5, **settings))
        progress.show("a_task_with_a_rather_long_name", "a_method_with_one_too")
        first, *others = shown(progress)
    assert "10/20" in first
    assert "━" in first
    assert "left" in first
    assert "0:00:00" in first
    assert max(len(line.rstrip()) for line in (first, *others)) <= 100
    assert "keep=0.4 1.00x score 50.0" in " ".join(" ".join(others).split())  # the last one's numbers too


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=20) as progress:
        for place in range(20):
            progress.show("qasper", "baseline")
            progress.advance(timed("baseline", f"s{place}", 1.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("1/20 qasper, 0:00:00 left: baseline 1.00 s")  # as soon as there is a number
    assert lines[-1] == "20/20 qasper, 0:00:00 left: baseline 1.00 s"  # the method is named once


def test_time_left_is_at_the_pace_of_what_is_measured_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an earlier process took none of this one's time."""
    now = [100.0]
    monkeypatch.setattr("lazybench.run.progress.time.monotonic", lambda: now[0])
    with Progress(total=20) as progress:
        for place in range(15):
            progress.advance(timed("baseline", f"s{place}", 1.0))
        assert progress.bar.tasks[0].fields["left"] == "?"
        progress.show("qasper", "baseline")
        now[0] += 90
        progress.advance(timed("baseline", "s15", 1.0))
        assert progress.bar.tasks[0].fields["left"] == "0:06:00"
