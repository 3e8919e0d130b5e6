"""The main job end to end on a tiny real checkpoint: records, resume, bad input, sweeps.

One run is a process of its own; the others run in this one.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import QUICK, RunPy

from lazybench.report.results import load
from lazybench.run.reading import read_records
from lazybench.run.record import Record

METHODS = ("baseline", "static_pruning", "lazyllm")


def overrides(checkpoint: Path, out: Path, *more: str) -> list[str]:
    limit = [] if "limit" in str(more) else ["limit=3"]
    return [f"model.path={checkpoint}", f"out={out}", f"methods=[{','.join(METHODS)}]", *QUICK, *limit, *more]


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    done = run_py(*overrides(tiny_checkpoint, out))
    assert done.returncode == 0, done.stderr
    assert f"the page: {out / 'index.html'}" in done.stdout.splitlines()[-1]
    assert re.search(r"^9/9 needle \w+, 0:00:00 left$", done.stderr, re.MULTILINE)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_a_run_leaves_everything_the_contract_names(finished: Path) -> None:
    names = {"config.yaml", "provenance.json", "samples.jsonl", "summary.csv", "table.md", "tradeoff.png", "done"}
    assert {*names, "index.html"} <= {path.name for path in finished.iterdir()}
    lines = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * len(METHODS)
    assert set(Record.__dataclass_fields__) <= set(lines[0])


def test_every_sample_goes_through_every_method_in_rotating_order(finished: Path) -> None:
    by_sample: dict[str, list[Record]] = {}
    for record in read_records(finished / "samples.jsonl"):
        by_sample.setdefault(record.sample_id, []).append(record)
    for group in by_sample.values():
        assert {record.method for record in group} == set(METHODS)
        assert len({record.prompt_tokens for record in group}) == 1
    first = {min(group, key=lambda record: record.order).method for group in by_sample.values()}
    assert first == set(METHODS)  # three samples, three starting methods


def test_the_baseline_agrees_with_itself_and_pruning_computes_less(finished: Path) -> None:
    for record in read_records(finished / "samples.jsonl"):
        assert record.ttft_s is not None
        assert record.generation_s is not None
        assert 0 < record.ttft_s <= record.generation_s
        if record.method == "baseline":
            assert (record.fidelity_top1, record.fidelity_kl, record.fidelity_first_kl) == (1.0, 0.0, 0.0)
            assert record.prompt_tokens_computed == 1.0
        if record.method == "lazyllm":
            assert record.prompt_tokens_computed < 1.0 < record.flops_ratio
            assert record.fidelity_first_top1 in (0.0, 1.0)
            assert record.fidelity_first_kl > 0.0


def test_a_rerun_measures_nothing_twice_and_another_configuration_never_mixes_in(
    copied: Path, tiny_checkpoint: Path, command: RunPy
) -> None:
    before = (copied / "samples.jsonl").read_bytes()
    again = command(*overrides(tiny_checkpoint, copied))
    assert again.returncode == 0, again.stderr
    assert "nothing is measured twice" in again.stdout
    other = command(*overrides(tiny_checkpoint, copied, "seed=7"))
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "seed" in other.stderr
    assert (copied / "samples.jsonl").read_bytes() == before


def test_a_higher_limit_measures_what_is_new(copied: Path, tiny_checkpoint: Path, command: RunPy) -> None:
    """The samples and orders that one run with this limit would have had."""
    before = read_records(copied / "samples.jsonl")
    more = command(*overrides(tiny_checkpoint, copied, "limit=5"))
    assert more.returncode == 0, more.stderr
    assert json.loads((copied / "done").read_text())["records"] == 15
    records = read_records(copied / "samples.jsonl")
    assert records[:9] == before
    whole = command(*overrides(tiny_checkpoint, copied.parent / "whole", "limit=5"))
    assert whole.returncode == 0, whole.stderr
    asked = [(record.key, record.order) for record in read_records(copied.parent / "whole" / "samples.jsonl")]
    assert [(record.key, record.order) for record in records] == asked


def test_a_crash_while_reporting_is_repaired_by_the_same_command(
    tiny_checkpoint: Path, command: RunPy, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "summary.csv").mkdir(parents=True)  # nothing can be written there
    arguments = overrides(tiny_checkpoint, out, "limit=1")
    assert command(*arguments).returncode == 2
    measured = read_records(out / "samples.jsonl")
    assert len(measured) == len(METHODS)
    assert not (out / "done").exists()
    (out / "summary.csv").rmdir()
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert (out / "done").exists()
    assert read_records(out / "samples.jsonl") == measured


def test_a_shard_without_a_sample_ends_well_and_says_so(tiny_checkpoint: Path, command: RunPy, tmp_path: Path) -> None:
    done = command(*overrides(tiny_checkpoint, tmp_path / "out", "shard=3/4", "attention_map=true"))
    assert done.returncode == 0, done.stderr
    assert "shard=3/4 has no sample to measure: take fewer shards, or a higher limit\n" in done.stderr
    assert (tmp_path / "out" / "done").is_file()
    assert not read_records(tmp_path / "out" / "samples.jsonl")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (("task=qasper", "data.root=2024"), ("data.root=2024", "not a folder")),
        (("model.path=/nonexistent",), ("/nonexistent",)),
        (("task=plain_text", "task.datasets=[plain_text_100]", "task.parameters.prompts=x"), ("prompts='x'",)),
        (
            ("task=plain_text", "task.datasets=[plain_text_2000]", "max_new_tokens=64"),
            ("2000 tokens and 64 new ones", "2048"),
        ),
        (("pruning.layers=[40]", "pruning.keep=[0.5]"), ("40", "4 layers")),
        (("methods=[{method: lazyllm, pruning: {layers: [1,9], keep: [0.5,0.5], depths: null}}]",), ("9",)),
        (("model.attention=stranger/kernel",), ("model.attention='stranger/kernel'",)),
        (("model.chat_format=chatml",), ("llama2, none, tokenizer, xgen",)),
        (("max_new_tokens=100000",), ("max_new_tokens=100000", "window of 2048")),
        (("task.parameters.length=5000",), ("length=5000", "choose length=")),
    ],
)
def test_input_that_the_model_or_the_data_shows_to_be_bad_gets_one_line(
    bad: tuple[str, ...], words: tuple[str, ...], tiny_checkpoint: Path, command: RunPy, tmp_path: Path
) -> None:
    quick = [override for override in QUICK if not (bad[0].startswith("task=") and override.startswith("task"))]
    result = command(f"model.path={tiny_checkpoint}", "out=out", *quick, "limit=3", *bad)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line
    assert not (tmp_path / "out" / "samples.jsonl").exists()


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.parametrize("launcher", [(), pytest.param(JOBLIB, marks=pytest.mark.slow)], ids=["alone", "joblib"])
def test_shards_merge_and_a_failed_job_is_named(
    launcher: tuple[str, ...], tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    """One after another, and in worker processes."""
    sweep = ("-m", *launcher, f"model.path={tiny_checkpoint}", *QUICK, "limit=4", "shard=0/2,5/2,1/2")
    done = run_py(*sweep, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "1 of 3 jobs failed" in last
    assert "shard=5/2 (exit code 2)" in last
    assert "Traceback" not in done.stderr
    runs = load([tmp_path / "results" / "runs"]).runs
    assert all(run.finished for run in runs)
    assert sorted(run.shard for run in runs) == ["0/2", "1/2"]
    assert len({record.sample_id for run in runs for record in run.records}) == 4


def test_of_a_sweep_whose_jobs_are_one_configuration_the_newest_counts(tiny_checkpoint: Path, command: RunPy) -> None:
    done = command("-m", f"model.path={tiny_checkpoint}", "tag=one,two", *QUICK, "limit=1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "newer" in done.stdout.partition("runs together")[2]


def test_a_tagged_sweep_of_models_by_path_ends_with_one_table_in_a_file(
    tiny_checkpoint: Path, command: RunPy, tmp_path: Path
) -> None:
    """Of every job, seeds put together; none prints a table of its own."""
    shutil.copytree(tiny_checkpoint, tmp_path / "twin")
    hard = ("pruning.layers=[1]", "pruning.keep=[0.2]", "methods=[baseline,lazyllm]")
    sweep = ("-m", f"model={tiny_checkpoint},twin", *hard, "tag=both", *QUICK, "limit=1", "seed=0,1")
    done = command(*sweep)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| method ") == 2  # one of each model
    said = re.search(r"^all 4 runs together \((\S+)\):\n\n(.*)\n", done.stdout, re.MULTILINE | re.DOTALL)
    assert said is not None
    assert Path(said[1]) == tmp_path / "results" / "runs" / "both" / "table.md"
    assert Path(said[1]).read_text(encoding="utf-8").strip() == said[2].strip()
    assert all(name in said[2] for name in (tiny_checkpoint.name, "twin"))
    assert re.search(r"^\| LazyLLM +\| 2 \|", said[2], re.MULTILINE)
    assert len(list(Path(said[1]).parent.glob("*/done"))) == 4
    again = command(*sweep)
    assert again.stdout.count("is finished") == 4
