"""Twenty kills, Ctrl-Cs and SIGTERMs at random moments lose nothing, double nothing, and the line says what is kept."""

from __future__ import annotations

import json
import os
import random
import re
import runpy
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, ROOT, RunPy, python

from lazybench.methods.random_drop import RandomDrop
from lazybench.run.reading import read_records
from lazybench.run.record import Record, RecordKey, from_line

METHODS = "methods=[baseline,static_pruning,lazyllm]"
SAMPLES, KILLS = 40, 20


def test_twenty_interrupts_lose_and_double_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    count = (f"task.parameters.samples={SAMPLES}", f"limit={SAMPLES}")
    settings = (f"model.path={tiny_checkpoint}", *QUICK, METHODS, *count)
    done = python(__file__, str(out), *settings)
    assert done.returncode == 0, done.stderr
    *killed, last = json.loads(done.stdout)
    assert len(killed) == KILLS
    assert last["code"] == 0, last["stderr"]
    final = {record.key: record for record in read_records(out / "samples.jsonl")}
    assert len(final) == len((out / "samples.jsonl").read_text().splitlines()) == 3 * SAMPLES
    assert all(record.error is None and record.fidelity_top1 is not None for record in final.values())

    before: dict[RecordKey, Record] = {}
    for child in killed:
        assert "Traceback" not in child["stderr"]
        kept = whole(child)
        for key, record in before.items():  # what was there stays, and is not measured again
            assert kept[key] == record
        assert len(kept) > len(before)
        for key, record in kept.items():
            assert final[key] == record
        if child["signal"] != "SIGKILL":
            assert child["code"] == 130
            assert re.search(rf"interrupted; {len(kept)} records are kept in ", child["stderr"]), child["stderr"]
        before = kept


@pytest.mark.parametrize(
    ("moment", "said"),
    [("prepare", "interrupted before the first record"), ("run", "interrupted; 1 record is kept in run;")],
)
def test_an_interrupt_says_what_is_kept(
    tiny_checkpoint: Path, command: RunPy, monkeypatch: pytest.MonkeyPatch, moment: str, said: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RandomDrop, moment, interrupt)
    done = command(
        f"model={tiny_checkpoint}", *QUICK, "methods=[baseline,random_drop]", "limit=1", "warmup=0", "out=run"
    )
    assert done.returncode == 130
    assert said in done.stderr


def whole(child: dict[str, Any]) -> dict[RecordKey, Record]:
    """The whole lines that a child left, by key: a kill may have torn the last."""
    return {record.key: record for record in map(from_line, child["samples"].split("\n")[:-1])}


def main() -> None:
    """A real run that goes on as ``run.py`` does until it is killed, again and again; the last one may finish.

    Some lines later or at a random moment, by SIGKILL, Ctrl-C and SIGTERM by turns. Each is forked, so that torch is
    imported once. Prints, for each, its signal, exit code, standard error, and samples.jsonl as it left it.
    """
    import lazybench.run.runner  # noqa: F401 - what every child would import, with torch

    samples = Path(sys.argv[1]) / "samples.jsonl"
    sys.argv = [str(ROOT / "run.py"), f"out={sys.argv[1]}", *sys.argv[2:]]
    draw, children = random.Random(0), []
    for number in range(KILLS + 1):
        with tempfile.TemporaryFile() as errors:
            child = fork_run(errors.fileno())
            name = "none" if number == KILLS else ("SIGKILL", "SIGINT", "SIGTERM")[number % 3]
            if name != "none":
                wait_for_lines(samples, count_lines(samples) + draw.randrange(1, 5))
                time.sleep(draw.random() * 0.05)
                os.kill(child, getattr(signal, name))
            _, status = os.waitpid(child, 0)
            errors.seek(0)
            said = errors.read().decode()
        code = os.waitstatus_to_exitcode(status)
        children.append({"signal": name, "code": code, "stderr": said, "samples": samples.read_text()})
    print(json.dumps(children))


def fork_run(errors: int) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    code = 1
    try:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def count_lines(samples: Path) -> int:
    return samples.read_bytes().count(b"\n") if samples.exists() else 0


def wait_for_lines(samples: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while count_lines(samples) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{samples} has {count_lines(samples)} lines, not {lines}")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
