"""Twenty kills, Ctrl-Cs and SIGTERMs at random moments lose nothing, double nothing, and the line says what is kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT, RunPy, run_environment
from test_main_job import QUICK

from lazybench.run.reading import read_records
from lazybench.run.record import Record, RecordKey, from_line

METHODS = "methods=[baseline,static_pruning,lazyllm]"
SAMPLES = 40


def test_twenty_interrupts_lose_and_double_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = (
        f"model.path={tiny_checkpoint}",
        *QUICK,
        METHODS,
        f"task.parameters.samples={SAMPLES}",
        f"limit={SAMPLES}",
    )
    command = [sys.executable, str(ROOT / "tests" / "interrupt_driver.py"), str(out), *settings]
    done = subprocess.run(command, cwd=ROOT, env=run_environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    *killed, last = json.loads(done.stdout)
    assert len(killed) == 20
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


STOPS = """
from dataclasses import dataclass
from typing import ClassVar
from lazybench.methods import register
from lazybench.methods.baseline import Baseline

@register
@dataclass(frozen=True)
class Stops(Baseline):
    early: bool = False
    name: ClassVar[str] = "stops"

    def prepare(self, model):
        if self.early:
            raise KeyboardInterrupt

    def run(self, request):
        raise KeyboardInterrupt
"""


def test_an_interrupt_says_what_is_kept(tiny_checkpoint: Path, command: RunPy, tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(STOPS, encoding="utf-8")
    for early, said in (
        (True, "interrupted before the first record"),
        (False, "interrupted; 1 record is kept in run;"),
    ):
        stops = f"methods=[baseline,{{method: stops, early: {early}}}]"
        run = (f"model={tiny_checkpoint}", *QUICK, "plugins=[stopping]", "limit=1", "warmup=0", "out=run", stops)
        done = command(*run)
        assert done.returncode == 130
        assert said in done.stderr


def whole(child: dict[str, Any]) -> dict[RecordKey, Record]:
    """The whole lines that a child left, by key: a kill may have torn the last."""
    return {record.key: record for record in map(from_line, child["samples"].split("\n")[:-1])}
