"""python -m lazybench verify on honest runs and on ones that were tampered with."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import longbench_rows
import pytest
from conftest import ROOT, python

from lazybench.errors import UserError
from lazybench.models.chat import postprocessor
from lazybench.report.checks import check_flops, check_records, config_of
from lazybench.report.page import write_run_report
from lazybench.report.verify import main
from lazybench.run.reading import find_runs, read_runs
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings

MATCH = """{folder}:
flops_ratio: 0 of 0 computed again from the record
records: 8 of 8 there: match
score: 8 of 8 computed again: match
not checked: prompt_tokens, prediction; --remeasure N measures N records anew, times and memory nobody can check
1 runs, what was computed again: 1 match, 0 differ, 0 not checked, or not wholly
"""
LAZY = "tiny, qasper lazyllm depths=0.3,0.6,0.9 keep=0.7,0.7,0.7, sample"
ANSWERS = ("a benchmark of documents", "unanswerable", "they used BLEU", "a corpus")
PREDICTIONS = ("a benchmark of long documents", "unanswerable", "Assistant: They used BLEU", "the tiny corpus")
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two methods on four samples, scored and reported by the project's own code; and its data."""
    root = tmp_path_factory.mktemp("honest")
    (root / "data").mkdir()
    rows = [longbench_rows.row(n, answers=[answer, "no answer"], dataset="qasper") for n, answer in enumerate(ANSWERS)]
    task = build_task("qasper", DataSettings(root=longbench_rows.write(root / "data", "qasper", rows)))
    config = {
        "model": {"name": "tiny", "chat_format": "xgen", "weights": "pretrained"},
        "task": {"name": "qasper", "datasets": ["qasper"], "parameters": {}},
        "data": {"root": str(root / "data")}, "limit": None, "seed": 0, "shard": "0/1", "repeats": 1,
        "max_new_tokens": None, "methods": [{"method": "baseline"}, {"method": "lazyllm"}],
    }  # fmt: skip
    prints = {"qasper": {"fingerprint": task.fingerprint, "source": task.source}}
    clean = postprocessor("xgen")
    with RunFolder.open(root / "run", config, {"seed": 0, "model": {}, "tasks": prints}) as run:
        for sample, prediction in zip(task.samples(), PREDICTIONS, strict=True):
            for method in ("baseline", "lazyllm"):
                score = task.score(clean(prediction), sample)
                key = ("tiny", "qasper", task.category, method, {}, sample.sample_id, 0)
                run.append(Record(*key, prompt_tokens=100, score=score, prediction=prediction))
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


def test_an_honest_run_matches(folder: Path) -> None:
    scores = {json.loads(line)["score"] for line in (folder / "samples.jsonl").read_text().splitlines()}
    assert len(scores) > 1  # not all zero
    done = python("-m", "lazybench", "verify", str(folder))
    assert (done.returncode, done.stdout, done.stderr) == (0, MATCH.format(folder=folder), "")


def change(place: int | None, **values: object) -> Callable[[Lines], object]:
    """One line, or all of LazyLLM's."""
    return lambda lines: [line.update(values) for line in (lines[1::2] if place is None else [lines[place]])]


@pytest.mark.parametrize(
    ("tamper", "code", "said"),
    [
        (change(3, score=None), 1, f"score: 8 of 8 computed again: differ\n  {LAZY} id1 repeat 0: None in the file"),
        (change(3, score=0.125), 1, f"score: 8 of 8 computed again: differ\n  {LAZY} id1 repeat 0: 0.125 in the file"),
        (change(3, score=None, error="OutOfMemoryError: too big"), 0, "8 of 8 there, 1 of them failed: match"),
        (list.pop, 1, f"records: 7 of 8 there: differ\n  {LAZY} id3 repeat 0: no such record"),
        (change(None, model="a larger one"), 1, "4 of 8 there: differ[^#]*a larger one, .*: not asked of this run"),
        (change(None, method="taper"), 1, "4 of 8 there: differ[^#]*qasper taper .*: not asked of this run"),
        (change(None, method="nobody's"), 1, "4 of 8 there: differ[^#]*nobody's, .*: not asked of this run"),
        (change(None, params={"pruning": {"keep": [0.5] * 3}}), 1, "keep=0.5,0.5,0.5, .*: not asked of this run"),
        (change(None, repeat=1), 1, "repeat 1: not asked of this run"),
        (change(None, sample_id="id9"), 1, "sample id9 repeat 0: not asked of this run"),
    ],
)
def test_what_was_changed_or_left_out_by_hand_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], tamper: Callable[[Lines], object], code: int, said: str
) -> None:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    tamper(lines)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_run_report(folder)  # a cherry-picker makes the summary fit
    assert main([str(folder)]) == code
    out = capsys.readouterr().out
    assert re.search(said, out), out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (r"(?s)methods:.*?lazyllm\n", "methods: [baseline, lazyllm, taper]\n", "8 of 12 there: differ\n.*taper preset"),
        ("repeats: 1", "repeats: 2", "8 of 16 there: differ\n.*repeat 1: no such record"),
    ],
)
def test_a_method_or_repeat_left_out_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, said: str
) -> None:
    config = folder / "config.yaml"
    config.write_text(re.sub(before, after, config.read_text()))
    assert main([str(folder)]) == 1
    assert re.search(said, capsys.readouterr().out)


def test_a_flops_ratio_changed_by_hand_differs_from_its_record() -> None:
    (run,) = read_runs(ROOT / "results" / "published" / "default_run.parquet")
    honest = check_flops(run)
    assert (honest.compared, honest.different) == (50, [])
    changes: tuple[tuple[dict[str, Any], int, int], ...] = (
        ({"flops_ratio": 9.0}, 50, 1),
        ({"flops_ratio": 9.0, "tokens_of_layer_runs": (0,)}, 50, 1),  # counts of no run hide no other record
        ({"flops_ratio": 9.0, "tokens_of_layer_runs": ()}, 49, 0),  # without counts it is seen to be left out
    )
    for change_of_one, compared, different in changes:
        check = check_flops(
            replace(run, records=[replace(run.records[1], **change_of_one), *run.records[:1], *run.records[2:]])
        )
        assert (check.expected, check.compared, len(check.different)) == (50, compared, different)
    assert check_flops(replace(run, provenance={})).not_checked


def test_many_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder, folder.parent / "more" / "copy")
    samples = folder.parent / "more" / "copy" / "samples.jsonl"
    assert main([str(folder.parent)]) == 0
    assert (
        "2 runs, what was computed again: 2 match, 0 differ, 0 not checked, or not wholly\n" in capsys.readouterr().out
    )
    samples.write_text(samples.read_text().replace('"a benchmark', '"no benchmark'))
    assert main([str(folder), str(folder.parent / "more"), str(folder.parent / "nowhere")]) == 1
    said = capsys.readouterr()
    assert f"{samples.parent}:\n" in said.out
    assert said.out.endswith("3 runs, what was computed again: 1 match, 1 differ, 1 not checked, or not wholly\n")
    assert "nowhere" in said.err


@pytest.mark.parametrize("other", [False, True], ids=["moved", "other data of the same name"])
def test_without_its_data_what_can_be_checked_is(folder: Path, capsys: pytest.CaptureFixture[str], other: bool) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder.parent / "data").rename(elsewhere)
    data = elsewhere / "qasper.jsonl"
    if other:
        data.write_text(data.read_text().replace("unanswerable", "yes"))
    assert main([str(folder), *(["--data-root", str(elsewhere)] if other else [])]) == 2
    said = capsys.readouterr().out
    assert "records: 8 of 8 there: match\n  not checked: whether qasper has more samples" in said
    assert "score: 0 of 8 computed again\n  not checked: no data at hand for qasper" in said  # and is not said to match
    assert ("is not what was measured" in said) == other
    assert other or main([str(folder), "--data-root", str(elsewhere)]) == 0


def test_what_is_published_agrees_with_its_runs() -> None:
    """Without LongBench's texts: of whom each record is."""
    for path in find_runs(ROOT / "results" / "published"):
        for run in read_runs(path):
            with suppress(UserError):  # a draft model that is noted by its name alone
                checks = check_records(run, config_of(run)).values()
                assert [line for check in checks for line in check.different] == [], run.path
