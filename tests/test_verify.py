"""python -m lazybench verify, as a process, on honest runs and on ones that were tampered with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

from lazybench.errors import UserError
from lazybench.measure.fidelity import EXACT, Fidelity
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.report.checks import check_flops, check_records
from lazybench.report.data_at_hand import config_of
from lazybench.report.page import write_run_report
from lazybench.report.verify import main
from lazybench.run.reading import find_runs, read_runs
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings

MATCH = (
    "{folder}:\n"
    "flops_ratio: 8 of 8 computed again from the record: match\n"
    "records: 8 of 8 there: match\n"
    "score: 8 of 8 computed again: match\n"
    "not checked (--remeasure N measures N records anew): fidelity_first_kl, fidelity_first_top1, fidelity_kl, "
    "fidelity_top1, output_tokens, prediction, prompt_tokens, prompt_tokens_computed, tokens_of_layer_runs\n"
    "nobody can check: decode_step_s, generation_s, ttft_s\n"
    "1 runs, what was computed again: 1 match, 0 differ, 0 not checked, or not wholly\n"
)
COST = LayerCost(attention_weights=4096.0, mlp_weights=6144.0, attention_width=32.0, layers=4)
LESS = Fidelity(top1=0.75, kl=0.1, first_top1=0.0, first_kl=0.2)
LAZY = "lazyllm depths=0.3,0.6,0.9 keep=0.7,0.7,0.7"
PREDICTIONS = ("a benchmark of long documents", "unanswerable", "Assistant: They used BLEU", "the tiny corpus")


class Answer(NamedTuple):
    code: int
    stdout: str
    stderr: str


Verify = Callable[..., Answer]


def make_data(root: Path) -> None:
    rows = [
        {
            "input": f"Question {number}?", "context": "A paper. " * 30, "length": 60, "language": "en",
            "answers": [answer, "no answer"], "all_classes": None, "dataset": "qasper", "_id": f"id{number}",
        }
        for number, answer in enumerate(("a benchmark of documents", "unanswerable", "they used BLEU", "a corpus"))
    ]  # fmt: skip
    (root / "qasper.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two methods on four samples, scored and reported by the project's own code; and its data."""
    root = tmp_path_factory.mktemp("honest")
    (root / "data").mkdir()
    make_data(root / "data")
    task = build_task("qasper", DataSettings(root=root / "data"))
    config = {
        "model": {"name": "tiny", "chat_format": "xgen", "weights": "pretrained"},
        "task": {"name": "qasper", "datasets": ["qasper"], "parameters": {}},
        "data": {"root": str(root / "data")}, "limit": None, "seed": 0, "shard": "0/1", "repeats": 1,
        "max_new_tokens": None,
        "methods": [{"method": "baseline"}, {"method": "lazyllm"}],
    }  # fmt: skip
    facts = {
        "seed": 0,
        "model": {},
        "layer_cost": asdict(COST),
        "tasks": {"qasper": {"fingerprint": task.fingerprint, "source": task.source}},
    }
    clean = postprocessor("xgen")
    with RunFolder.open(root / "run", config, facts) as run:
        for number, (sample, prediction) in enumerate(zip(task.samples(), PREDICTIONS, strict=True)):
            for method, ttft_s, runs in (
                ("baseline", 2.0 + number, (100,) * 4), ("lazyllm", 1.0 + number, (100, 60, 60, 20))
            ):  # fmt: skip
                run.append(
                    Record(
                        *("tiny", "qasper", task.category, method, {}, sample.sample_id), repeat=0, prompt_tokens=100,
                        output_tokens=4, ttft_s=ttft_s, generation_s=ttft_s + 0.75, decode_step_s=0.25,
                        score=task.score(clean(prediction), sample), prediction=prediction,
                        prompt_tokens_computed=sum(runs) / 400, tokens_of_layer_runs=runs,
                        flops_ratio=COST.flops([100] * 4) / COST.flops(runs),
                        **{f"fidelity_{k}": v for k, v in asdict(EXACT if method == "baseline" else LESS).items()},
                    )
                )  # fmt: skip
        write_run_report(run.path)
        run.finish()
    return root


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    """A copy to tamper with; its configuration names its own copy of the data."""
    shutil.copytree(honest, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(honest), str(tmp_path)))
    return tmp_path / "run"


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run


def edit(folder: Path, change: Callable[[list[dict[str, Any]]], object], report: bool = True) -> list[dict[str, Any]]:
    """Change the records' lines by hand, and make the summary say what they say; gives the lines."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    change(lines)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if report:
        write_run_report(folder)
    return lines


def test_an_honest_run_matches(folder: Path) -> None:
    scores = {json.loads(line)["score"] for line in (folder / "samples.jsonl").read_text().splitlines()}
    assert len(scores) > 1  # not all zero
    command = [sys.executable, "-m", "lazybench", "verify", str(folder)]
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, MATCH.format(folder=folder), "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": None}, ("score: 8 of 8 computed again: differ", "{where}: None in the file")),
        ({"score": 0.125}, ("score: 8 of 8 computed again: differ", "{where}: 0.125 in the file")),
        ({"score": None, "error": "OutOfMemoryError: too big"}, ("8 of 8 there, 1 of them failed: match",)),
    ],
)
def test_a_changed_score_is_named_and_a_failed_record_counted(
    folder: Path, verify: Verify, changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    lines = edit(folder, lambda lines: lines[3].update(changes))
    done = verify(folder)
    assert done.code == (0 if "error" in changes else 1)
    where = f"tiny, qasper {LAZY}, sample {lines[3]['sample_id']} repeat 0"
    assert all(text.format(where=where) in done.stdout for text in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "a larger one"}, "a larger one, qasper .*: not asked of this run"),
        ({"method": "taper"}, "qasper taper .*: not asked of this run"),
        ({"method": "nobody's"}, "qasper nobody's, .*: not asked of this run"),
        ({"params": {"pruning": {"keep": [0.5, 0.5, 0.5]}}}, "lazyllm .*keep=0.5,0.5,0.5, .*: not asked of this run"),
        ({"repeat": 1}, "repeat 1: not asked of this run"),
        ({"sample_id": "id9"}, "sample id9 repeat 0: not asked of this run"),
        ({"commit": "0123456"}, "commit 0123456, which is not of this run"),
        ({"category": "summarization"}, "category summarization, not the task's"),
    ],
)
def test_records_of_something_else_than_the_run_differ(
    folder: Path, verify: Verify, changes: dict[str, object], said: str
) -> None:
    edit(folder, lambda lines: [line.update(changes) for line in lines if line["method"] == "lazyllm"])
    done = verify(folder)
    assert done.code == 1
    assert re.search(r"(?m)^records: .*: differ$", done.stdout), done.stdout
    assert re.search(said, done.stdout), done.stdout


@pytest.mark.parametrize(
    ("column", "said"),
    [
        *(
            ("flops_ratio", "differ"),
            ("decode_step_s", "nobody can check"),
            ("prompt_tokens_computed", "not checked"),
            ("fidelity_kl", "not checked"),
            ("fidelity_top1", "not checked"),
            ("ttft_s", "nobody can check"),
        ),
    ],
)
def test_a_changed_column_differs_or_is_said_to_be_unchecked(
    folder: Path, verify: Verify, column: str, said: str
) -> None:
    """The records of a method that is not the baseline, changed by hand together with all that follows from them."""

    def change(lines: list[dict[str, Any]]) -> None:
        for line in lines[1::2]:
            line[column] *= 0.5
            if column == "ttft_s":
                line["generation_s"] = line["ttft_s"] + 0.75

    edit(folder, change)
    done = verify(folder)
    named = [line for line in done.stdout.splitlines() if re.search(rf"\b{column}\b", line)]
    if said == "differ":
        assert done.code == 1
        assert f"{column}: 8 of 8 computed again from the record: differ" in named
    else:
        assert done.code == 0
        assert any(line.startswith(said) for line in named)
        assert not any("8 of 8" in line for line in named)


def test_a_sample_left_out_is_named(folder: Path, verify: Verify) -> None:
    left_out: list[dict[str, Any]] = []
    edit(folder, lambda lines: left_out.append(lines.pop()))  # a cherry-picker makes the summary fit
    done = verify(folder)
    assert done.code == 1
    assert "records: 7 of 8 there: differ" in done.stdout
    assert f"tiny, qasper {LAZY}, sample {left_out[0]['sample_id']} repeat 0: no such record" in done.stdout


def test_a_method_or_repeat_left_out_is_named(folder: Path, verify: Verify) -> None:
    config = folder / "config.yaml"
    asked = config.read_text()
    config.write_text(re.sub(r"(?s)methods:.*?lazyllm\n", "methods: [baseline, lazyllm, taper]\n", asked))
    done = verify(folder)
    assert done.code == 1
    assert "tiny, qasper taper preset=balanced, sample id3 repeat 0: no such record" in done.stdout
    assert "records: 8 of 12 there: differ" in done.stdout
    config.write_text(asked.replace("repeats: 1", "repeats: 2"))
    done = verify(folder)
    assert done.code == 1
    assert "records: 8 of 16 there: differ" in done.stdout


def test_many_folders(folder: Path, verify: Verify) -> None:
    shutil.copytree(folder, folder.parent / "more" / "copy")
    samples = folder.parent / "more" / "copy" / "samples.jsonl"
    assert verify(folder.parent).stdout.endswith(
        "2 runs, what was computed again: 2 match, 0 differ, 0 not checked, or not wholly\n"
    )
    samples.write_text(samples.read_text().replace('"a benchmark', '"no benchmark'))
    done = verify(folder, folder.parent / "more", folder.parent / "nowhere")
    assert done.code == 1
    assert f"{samples.parent}:\n" in done.stdout
    assert done.stdout.endswith("3 runs, what was computed again: 1 match, 1 differ, 1 not checked, or not wholly\n")
    assert "nowhere" in done.stderr


def test_data_that_moved(folder: Path, verify: Verify) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder.parent / "data").rename(elsewhere)
    done = verify(folder)
    assert done.code == 2
    said = done.stdout.splitlines()
    assert "records: 8 of 8 there: match" in said  # what can be checked without data is
    assert "score: 0 of 8 computed again" in said  # and nothing else is said to match
    assert any(line.startswith("  not checked: no data at hand for qasper") for line in said)
    assert verify(folder, "--data-root", elsewhere).code == 0


def test_other_data_of_the_same_name(folder: Path, verify: Verify) -> None:
    data = folder.parent / "data" / "qasper.jsonl"
    data.write_text(data.read_text().replace("unanswerable", "yes"))
    done = verify(folder)
    assert done.code == 2
    assert "is not what was measured" in done.stdout


def test_what_is_published_agrees_with_its_runs() -> None:
    """Without LongBench's texts: of whom each record is, and the columns that follow from others."""
    for path in find_runs(ROOT / "results" / "published"):
        for run in read_runs(path):
            checks = [check_flops(run)]
            with suppress(UserError):  # a draft model that is noted by its name alone
                checks += check_records(run, config_of(run)).values()
            assert [line for check in checks for line in check.different] == [], run.path
