"""The display of a run: nothing of it runs beside the clock, it fits its terminal, and it counts its own time."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from rich.console import Console
from store_driver import record

from lazybench.run.progress import Progress
from lazybench.run.record import Record


def done(method: str) -> Record:
    return replace(record(0), method=method)


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
        progress.advance(done("lazyllm"))
        assert "1/2" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_bar_count_and_time_left_stay_whatever_the_methods_are_called() -> None:
    with Progress(total=20) as progress:
        for _ in range(10):
            progress.advance(done("baseline"))
        progress.show("a_task_with_a_rather_long_name", "a_method_with_one_too")
        (first,) = shown(progress)
    assert "10/20" in first
    assert "━" in first
    assert "left" in first
    assert "0:00:00" in first
    assert len(first.rstrip()) <= 100


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(total=20) as progress:
        for _ in range(20):
            progress.show("qasper", "baseline")
            progress.advance(done("baseline"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == f"1/20 {record(0).task} baseline, 0:00:00 left"  # as soon as there is a number
    assert lines[-1] == f"20/20 {record(0).task} baseline, 0:00:00 left"


def test_time_left_is_at_the_pace_of_what_is_measured_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of an earlier process took none of this one's time, before its own or between them."""
    now = [100.0]
    monkeypatch.setattr("lazybench.run.progress.time.monotonic", lambda: now[0])
    with Progress(total=20) as progress:
        for _ in range(10):
            progress.advance(done("baseline"), earlier=True)
        assert progress.bar.tasks[0].fields["left"] == "?"
        progress.show("qasper", "baseline")
        now[0] += 90
        progress.advance(done("baseline"))
        for _ in range(5):
            progress.advance(done("baseline"), earlier=True)
        assert progress.bar.tasks[0].fields["left"] == "0:06:00"
