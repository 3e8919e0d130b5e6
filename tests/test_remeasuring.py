"""verify --remeasure: an honest run of a real tiny model matches, whatever was changed by hand differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import RunPy, save_tiny_checkpoint

from lazybench.report.checks import Check, config_of
from lazybench.report.page import write_run_report
from lazybench.report.verify import COLUMNS, remeasured
from lazybench.report.verify import main as verify
from lazybench.run.reading import read_run

METHODS = "methods=[baseline,{method: lazyllm, pruning: {layers: [1], keep: [0.4]}},taper,{method: random_drop}]"
TINY = ("model=custom", "task=needle", "task.parameters.length=150", "limit=2", "max_new_tokens=4", "warmup=0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, run_py: RunPy) -> Path:
    """A timed run and one without a clock, and the checkpoint that they name."""
    root = tmp_path_factory.mktemp("runs")
    save_tiny_checkpoint(root / "model")
    for name, settings in (("timed", ()), ("judged", ("timing=false",))):
        done = run_py(*TINY, f"model.path={root}/model", METHODS, *settings, f"out={root}/{name}")
        assert done.returncode == 0, done.stderr
    return root


def anew(folder: Path, count: int) -> dict[str, Check]:
    run = read_run(folder)
    return remeasured(run, config_of(run), count)


@pytest.mark.parametrize("name", ["timed", "judged"])
def test_an_honest_run_matches_in_every_column(runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (runs / name).iterdir() if path.is_file()}
    assert verify([str(runs / name), "--remeasure", "99"]) == 0
    said = capsys.readouterr().out
    count = len(read_run(runs / name).records)
    for column in ("prediction", "fidelity_kl", "fidelity_top1", "flops_ratio", "prompt_tokens_computed"):
        assert f"{column}: {count} of {count} measured anew: match\n" in said
    assert {path: path.read_bytes() for path in (runs / name).iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("fidelity_kl", 0.5), ("fidelity_top1", -0.5), ("prediction", "better"), ("output_tokens", 9)),
        *(("flops_ratio", 2.5), ("prompt_tokens_computed", 0.3), ("kv_bytes_end", 1)),
    ],
)
def test_a_value_changed_by_hand_differs(runs: Path, tmp_path: Path, column: str, value: Any) -> None:
    shutil.copytree(runs / "judged", tmp_path / "run")
    samples = tmp_path / "run" / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    changed = next(line for line in lines if line["method"] == "lazyllm")
    changed[column] = value
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = anew(tmp_path / "run", 99)
    assert [name for name, check in found.items() if check.different] == [column]
    assert len(found[column].different) == 1


def test_a_part_is_drawn_and_other_weights_are_no_check(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = anew(runs / "judged", 1)
    assert found["fidelity_kl"].compared == len(read_run(runs / "judged").records) // 2  # one of two samples
    assert set(found) <= set(COLUMNS)
    shutil.copytree(runs / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    write_run_report(runs / "judged")
    assert verify([str(runs / "judged"), "--remeasure", "1", "--model-path", str(tmp_path / "model")]) == 2
    assert "the model at hand is not the one measured" in capsys.readouterr().out
