"""Trackers with the real package, offline: what is kept, and that tracker=none does without."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python

RUN = """
import sys
from pathlib import Path
from store_driver import record
from lazybench.run.tracking import WeightsAndBiases
import matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plot
tracker = WeightsAndBiases({"model": {"name": "tiny"}, "task": {"name": "qasper"}, "seed": 0}, {"commit": "c0ffee"})
for number in range(3):
    tracker.log(record(number))
for name in ("config.yaml", "provenance.json", "samples.jsonl"):
    Path(name).write_text("x")
Path("summary.csv").write_text("task,ttft_speedup\\nqasper,1.5\\n")
plot.plot([1, 2]); plot.savefig("tradeoff.png")
tracker.finish(Path("summary.csv"), Path("tradeoff.png"))
"""


def run_wandb(folder: Path, **variables: str) -> str:
    """A run with tracker=wandb in ``folder``, with no account of whoever runs the tests; gives its standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    places = {"HOME": str(folder), "NETRC": str(folder / "none"), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {**kept, **places, **variables}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_wandb_without_an_account(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    said = run_wandb(tmp_path)
    assert "offline (no account" in said
    folder = tmp_path / re.search(r"wandb sync (\S+)", said)[1]
    content = next(folder.glob("*.wandb")).read_bytes()
    for expected in (
        b"c0ffee",
        b"ttft_s",
        b"layers=1 keep=0.5",
        b"samples.jsonl",
        b"provenance.json",
        b"lazybench-run",
    ):
        assert expected in content, expected
    table = json.loads(next(folder.glob("files/media/table/summary*.json")).read_text())
    assert (table["columns"], table["data"]) == (["task", "ttft_speedup"], [["qasper", 1.5]])
    assert next(folder.glob("files/media/images/tradeoff*.png")).stat().st_size > 1000


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "offline (no server: CommError)"),
        ({"WANDB_MODE": "offline"}, "WANDB_MODE=offline"),
    ],
)
def test_wandb_without_a_network_or_told_so(tmp_path: Path, variables: dict[str, str], reason: str) -> None:
    pytest.importorskip("wandb")
    said = run_wandb(tmp_path, **variables)
    assert reason in said
    assert (tmp_path / re.search(r"wandb sync (\S+)", said)[1]).is_dir()


def test_none_imports_nothing() -> None:
    code = "import sys, lazybench.run.tracking; print({'wandb', 'torch', 'pandas', 'matplotlib'} & {*sys.modules})"
    assert python("-c", code).stdout == "set()\n"
