"""Provenance says where numbers come from and nothing of who measured them."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from conftest import python

from lazybench.run import provenance

SOURCE = Path(provenance.__file__).resolve().parents[1]


def collect_in(project: Path, imports: str = "os") -> dict:
    """Provenance as code that lies in ``project`` collects it, beside modules of its folder."""
    code = "import json; from lazybench.run.provenance import collect; print(json.dumps(collect({}, {}, 0)))"
    places = {"PYTHONPATH": f"{project / 'src'}:{project}", "PYTHONDONTWRITEBYTECODE": "1"}
    return json.loads(python("-c", f"import {imports}; {code}", **places).stdout)


def git(project: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", "-C", str(project), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "src" / "lazybench", ignore=shutil.ignore_patterns("__pycache__"))
    plain = collect_in(tmp_path)
    assert (plain["commit"], plain["dirty"]) == (None, None)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = collect_in(tmp_path)
    assert (clean["commit"], clean["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "summary.csv").write_text("written by a run")
    (tmp_path / "own.py").write_text("pass")
    assert collect_in(tmp_path)["dirty"] is False
    assert collect_in(tmp_path, "own")["changed_files"] == ["own.py"]
    (tmp_path / "src" / "lazybench" / "pruning" / "sixth_rule.py").write_text("pass")
    dirty = collect_in(tmp_path)
    assert dirty["dirty"] is True
    assert dirty["changed_files"] == ["src/lazybench/pruning/sixth_rule.py"]


def test_facts_of_this_machine() -> None:
    facts = provenance.collect({"dtype": "float32"}, {"qasper": {"fingerprint": "f", "source": "hub X@1"}}, seed=3)
    assert facts["libraries"]["torch"] == version("torch")
    assert facts["libraries"]["python"] == platform.python_version()
    assert facts["hardware"]["torch_threads"] == torch.get_num_threads()
    assert facts["hardware"]["memory_gib"] > 0
    assert facts["hardware"]["cpus_usable"] == len(os.sched_getaffinity(0))
    assert facts["seed"] == 3
    assert facts["tasks"] == {"qasper": {"fingerprint": "f", "source": "hub X@1"}}
    assert facts["started_at"].endswith("+00:00")


def test_says_nothing_of_people_and_places(tmp_path: Path) -> None:
    model = {"path": tmp_path / "llama.gguf", "note": f"file {tmp_path}/data/x.bin", "hub": "org/name@abc"}
    facts = provenance.collect(model, {"qasper": {"source": f"file {Path.home()}/qasper.jsonl"}}, seed=0)
    assert facts["model"] == {"path": "llama.gguf", "note": "file x.bin", "hub": "org/name@abc"}
    assert facts["tasks"] == {"qasper": {"source": "file qasper.jsonl"}}
    text = json.dumps(facts)
    assert str(SOURCE) not in text
    assert str(tmp_path) not in text
    words = text.replace('"', " ").split()
    assert platform.node() not in words
    assert getpass.getuser() not in words
