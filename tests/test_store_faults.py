"""Nothing measured is lost and nothing stands twice: real processes, killed for real, on disks that are really full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from store_driver import record

from lazybench.run.reading import read_records

DRIVER = [sys.executable, str(Path(__file__).with_name("store_driver.py"))]


def start(folder: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DRIVER, str(folder), *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, complaints = process.communicate(timeout=60)
    return process.returncode, complaints


def refused(folder: Path, *options: object) -> str:
    """The one line that a run ends with."""
    code, complaint = finish(start(folder, *options))
    assert (code, complaint.count("\n")) == (2, 1)
    return complaint


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"ended before {word!r}: {process.communicate()[1]}")


def assert_complete(folder: Path, samples: int) -> None:
    content = (folder / "samples.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") == samples
    records = read_records(folder / "samples.jsonl")  # raises where one stands twice
    assert {found.key: found for found in records} == {record(number).key: record(number) for number in range(samples)}
    assert (folder / "done").exists()


@pytest.mark.parametrize("fail", [(), (1,)])
def test_killed_between_any_two_writes(tmp_path: Path, fail: tuple[int, ...]) -> None:
    """Killed at the first fsync, resumed and killed at the second, and so on, with a failed sample to be moved too."""
    for count in range(1, 12):
        folder = tmp_path / str(count)
        assert finish(start(folder, "--samples", 3, "--die-at-fsync", count, "--fail", *fail))[0] == -signal.SIGKILL
        for again in (2, 5, 8):
            assert finish(start(folder, "--samples", 5, "--die-at-fsync", again))[0] in (-signal.SIGKILL, 0)
        assert finish(start(folder, "--samples", 5))[0] == 0
        assert_complete(folder, 5)
        assert json.loads((folder / "provenance.json").read_text())["commit"] == "c0ffee"


def test_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = start(tmp_path, "--samples", 1000, "--pause-s", 0.05)
    read_until(first, "appended")
    complaint = refused(tmp_path, "--samples", 5)
    assert str(tmp_path) in complaint
    assert f"pid {first.pid}" in complaint
    first.kill()
    first.communicate()
    assert finish(start(tmp_path, "--samples", 40))[0] == 0
    assert_complete(tmp_path, 40)


def test_disk_full_while_measuring(small_disk: Path) -> None:
    """Filled by the run itself: one line, a clean file, and everything else is measured once there is space."""
    assert "no space left" in refused(small_disk / "run", "--samples", 400)
    content = (small_disk / "run" / "samples.jsonl").read_bytes()
    assert content.endswith(b"\n")
    measured = content.count(b"\n")
    assert 10 < measured < 400
    refused(small_disk / "run", "--samples", 400)
    assert (small_disk / "run" / "samples.jsonl").read_bytes().startswith(content)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    process = start(small_disk / "run", "--samples", 400)
    read_until(process, f"open {measured}")
    assert finish(process)[0] == 0
    assert_complete(small_disk / "run", 400)


@pytest.mark.parametrize("begun", [False, True])
def test_disk_full_before_the_first_sample_or_a_repair(small_disk: Path, begun: bool) -> None:
    """A folder that needs repair on a full disk is left as it is until there is space."""
    run = small_disk / "run"
    if begun:
        assert finish(start(run, "--samples", 5, "--fail", 3))[0] == 1
        with (run / "samples.jsonl").open("ab") as file:
            file.write(b'{"torn')
    before = (run / "samples.jsonl").read_bytes() if begun else b""
    filler = small_disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), b"x" * 512)
    assert "no space left" in refused(run, "--samples", 5)
    assert not list(run.glob(".*.new"))
    assert not begun or (run / "samples.jsonl").read_bytes() == before
    filler.unlink()
    assert finish(start(run, "--samples", 5))[0] == 0
    assert_complete(run, 5)
    assert not begun or (run / "samples.malformed.jsonl").read_bytes() == b'{"torn\n'


def test_file_size_limit(tmp_path: Path) -> None:
    """A quota met in the middle of a line (the kernel takes its first part): the part is taken back."""
    refused(tmp_path, "--samples", 50, "--file-limit-bytes", 10_000)
    content = (tmp_path / "samples.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert 8_000 < len(content) < 10_000
    assert finish(start(tmp_path, "--samples", 50))[0] == 0
    assert_complete(tmp_path, 50)
