"""A method and a task of a user's own, in a module named on the command line: docs/extend.md as it is written."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, RunPy
from test_docs import commands, text_of
from test_exactness import check_equal, exact_model, prunes
from tiny_requests import tiny_request

import lazybench.methods
from lazybench.cli.choices import load_plugins
from lazybench.cli.groups import register
from lazybench.errors import UserError
from lazybench.methods import METHODS
from lazybench.run.reading import read_records
from lazybench.tasks import REGISTERED, register_task

EXTEND = ROOT / "docs/extend.md"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of docs/extend.md's module, which is imported here as a run imports it."""
    folder = tmp_path_factory.mktemp("extend")
    (code,) = re.findall(r"```python\n(.*?)```", text_of(EXTEND), re.DOTALL)
    (folder / "my_module.py").write_text(code, encoding="utf-8")
    before, tasks = dict(METHODS), dict(REGISTERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        load_plugins(["my_module"])
    yield folder
    for known, own in ((METHODS, before), (REGISTERED, tasks)):
        known.clear()
        known.update(own)
    register.cache_clear()


def test_the_documented_policy_prunes_and_at_keep_1_changes_nothing(extended: Path) -> None:
    request = tiny_request()  # 60 tokens, 8 layers
    method = lazybench.methods.build("two_cuts")
    method.prepare(request.model)
    assert method.run(request).work.tokens_of_layer_runs == (60,) * 3 + (30,) * 2 + (15,) * 3
    everything = lazybench.methods.build("two_cuts", {"keep": 1.0}).run(request)
    plain = request.model.generate(request.prompt_ids, **request.generate_kwargs)
    assert torch.equal(everything.new_tokens, plain[0, 60:])
    model = exact_model("grouped queries")
    policy = method.policy(model.config)  # type: ignore[attr-defined]
    assert prunes(check_equal(model, policy, prompt_tokens=40, seed=3))  # equals the slow reference


def test_the_documented_rerun_sees_every_other_token(extended: Path) -> None:
    request = tiny_request()
    response = lazybench.methods.build("every_other").run(request)
    kept = request.prompt_ids[:, [*range(0, 60, 2), 59]]
    plain = request.model.generate(kept, **request.generate_kwargs)
    assert torch.equal(response.new_tokens, plain[0, 31:])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0")])
def test_the_documented_module_runs_as_written(
    extended: Path, tiny_checkpoint: Path, run_py: RunPy, launcher: tuple[str, ...]
) -> None:
    (command,) = [line for line in commands(EXTEND) if "plugins=" in line]
    words = [*launcher, *shlex.split(command)[2:]]
    small = (f"model={tiny_checkpoint}", "task.parameters.length=30", f"tag={'sweep' if launcher else 'one'}")
    done = run_py(*words, *small, cwd=extended)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in extended.glob(f"results/runs/{'sweep/*' if launcher else 'one'}/done"))
    records = read_records(run / "samples.jsonl")
    assert {(record.task, record.method) for record in records} == {("my_task", "baseline"), ("my_task", "two_cuts")}
    assert all(record.error is None for record in records)
    assert yaml.safe_load(text_of(run / "config.yaml"))["plugins"] == ["my_module"]
    digest = hashlib.sha256((extended / "my_module.py").read_bytes()).hexdigest()
    assert json.loads(text_of(run / "provenance.json"))["plugins"] == {"my_module": digest}


def test_no_task_takes_anothers_name() -> None:
    class Needle:
        name = "needle"

    with pytest.raises(UserError, match="two tasks are named 'needle'"):
        register_task(Needle)
