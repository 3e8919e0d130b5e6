"""run.py end to end, as a process, on a tiny real checkpoint: records, resume, kills, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, RunPy, run_environment

from lazybench.run.reading import read_records
from lazybench.run.record import Record

METHODS = ("baseline", "static_pruning", "lazyllm")
QUICK = ("task=needle", "task.parameters.length=150", "max_new_tokens=4", "model.dtype=float32")


def overrides(checkpoint: Path, out: Path, *more: str) -> list[str]:
    methods = f"methods=[{','.join(METHODS)}]"
    return [f"model.path={checkpoint}", f"out={out}", methods, *QUICK, "limit=3", *more]


def records_in(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tiny_checkpoint: Path, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    done = run_py(*overrides(tiny_checkpoint, out))
    assert done.returncode == 0, done.stderr
    assert f"the page: {out / 'index.html'}" in done.stdout.splitlines()[-1]
    return out


def test_a_run_leaves_everything_the_contract_names(finished: Path) -> None:
    names = {"config.yaml", "provenance.json", "samples.jsonl", "summary.csv", "table.md", "tradeoff.png", "done"}
    names |= {"index.html"}
    assert names <= {path.name for path in finished.iterdir()}
    lines = records_in(finished)
    assert len(lines) == 3 * len(METHODS)
    assert set(Record.__dataclass_fields__) <= set(lines[0])


def test_every_sample_goes_through_every_method_in_rotating_order(finished: Path) -> None:
    lines = records_in(finished)
    by_sample: dict[object, list[dict[str, object]]] = {}
    for line in lines:
        by_sample.setdefault(line["sample_id"], []).append(line)
    for group in by_sample.values():
        assert {line["method"] for line in group} == set(METHODS)
        assert len({line["prompt_tokens"] for line in group}) == 1
    first = [min(group, key=lambda line: int(str(line["order"])))["method"] for group in by_sample.values()]
    assert len(set(first)) == len(METHODS)  # three samples, three starting methods


def test_the_baseline_agrees_with_itself_and_pruning_computes_less(finished: Path) -> None:
    for line in records_in(finished):
        assert 0 < float(str(line["ttft_s"])) <= float(str(line["generation_s"]))
        if line["method"] == "baseline":
            assert line["fidelity_top1"] == 1.0
            assert line["fidelity_kl"] == line["fidelity_first_kl"] == 0.0
            assert line["prompt_tokens_computed"] == 1.0
        if line["method"] == "lazyllm":
            assert float(str(line["prompt_tokens_computed"])) < 1.0
            assert float(str(line["flops_ratio"])) > 1.0
            assert line["fidelity_first_top1"] in (0.0, 1.0)
            assert float(str(line["fidelity_first_kl"])) > 0.0


def test_a_rerun_measures_nothing_twice(finished: Path, tiny_checkpoint: Path, run_py: RunPy) -> None:
    before = (finished / "samples.jsonl").read_bytes()
    again = run_py(*overrides(tiny_checkpoint, finished))
    assert again.returncode == 0, again.stderr
    assert (finished / "samples.jsonl").read_bytes() == before


def test_a_crash_while_reporting_is_repaired_by_the_same_command(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "summary.csv").mkdir(parents=True)  # nothing can be written there
    arguments = overrides(tiny_checkpoint, out, "limit=1")
    assert run_py(*arguments).returncode != 0
    measured = read_records(out / "samples.jsonl")
    assert len(measured) == len(METHODS)
    assert not (out / "done").exists()
    (out / "summary.csv").rmdir()
    done = run_py(*arguments)
    assert done.returncode == 0, done.stderr
    assert (out / "done").exists()
    assert read_records(out / "samples.jsonl") == measured


def test_another_configuration_never_mixes_in(finished: Path, tiny_checkpoint: Path, run_py: RunPy) -> None:
    before = (finished / "samples.jsonl").read_bytes()
    other = run_py(*overrides(tiny_checkpoint, finished, "seed=7"))
    assert other.returncode == 2
    assert "seed" in other.stderr
    assert "Traceback" not in other.stderr
    assert (finished / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was(
    number: signal.Signals, tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = overrides(tiny_checkpoint, out, "limit=12", "fidelity=false", "max_new_tokens=48")
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=run_environment(), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (
        (out / "samples.jsonl").exists() and (out / "samples.jsonl").read_bytes().count(b"\n") > 3
    ):
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    kept = {tuple(line.items()) for line in _hashable(records_in_whole(out))}
    assert 3 < len(kept) < 36
    assert not (out / "done").exists()
    resumed = run_py(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    lines = records_in(out)
    assert kept <= {tuple(line.items()) for line in _hashable(lines)}  # nothing measured was measured again
    keys = [(line["sample_id"], line["method"], line["repeat"]) for line in lines]
    assert len(keys) == len(set(keys)) == 36


def records_in_whole(out: Path) -> list[dict[str, object]]:
    """The complete lines: a kill may have torn the last."""
    text = (out / "samples.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _hashable(lines: list[dict[str, object]]) -> list[dict[str, str]]:
    return [{key: json.dumps(value, sort_keys=True) for key, value in line.items()} for line in lines]


def test_a_shard_without_a_sample_ends_well_and_says_so(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    done = run_py(*overrides(tiny_checkpoint, tmp_path / "out", "shard=3/4", "attention_map=true"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines() == [
        "shard=3/4 has no sample to measure: take fewer shards, or a higher limit"
    ]
    assert (tmp_path / "out" / "done").is_file()
    assert not records_in(tmp_path / "out")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (("task=qaspr",), ("qaspr", "qasper")),
        (("model=lama2",), ("lama2", "llama2")),
        (("experiment=latncy",), ("latncy", "latency")),
        (("methods=[baseline,lazylm]",), ("lazylm", "lazyllm")),
        (("limt=3",), ("limt", "limit")),
        (("data.rot=x",), ("data.rot", "data.root")),
        (("task.parameters.lenght=3",), ("task.parameters.length",)),
        (("limit=[1",), ("'limit=[1'", "in quotes")),
        (("task=lm_eval",), ("task=lm_eval/gsm8k",)),
        (("model=nobody/",), ("nobody/",)),
        (("pruning=none.yaml",), ("none.yaml", "no such file")),
        (("pruning.revive=7",), ("pruning.revive=7", "true or false")),
        (("pruning.revival=8",), ("pruning.revival=8", "some of: most")),
        (("methods=[baseline,{method: lazyllm, pruning: null}]",), ("lazyllm.pruning=null", "some of: layers")),
        (("method.lazyllm.pruning=null",), ("lazyllm.pruning=null", "some of: layers")),
        (("task=qasper", "data.root=2024"), ("data.root=2024", "not a folder")),
        (("tag=one",), ("tag=one", "out=", "give one")),
        (("tag=a/b", "out=null"), ("tag=a/b", "letters")),
        (("limit=0",), ("limit=0", "at least 1")),
        (("repeats=0",), ("repeats=0", "at least 1")),
        (("shard=4/4",), ("shard=4/4",)),
        (("fidelity=perhaps",), ("fidelity='perhaps'", "true or false")),
        (("attention_map=1",), ("attention_map=1", "true or false")),
        (("model.weights=random", "model.num_layers=two"), ("model.num_layers='two'", "whole number")),
        (("model.weights=random", "model.window_tokens=0"), ("model.window_tokens=0", "at least 1")),
        (("task=plain_text", "task.datasets=[plain_text_99999999]"), ("plain_text_99999999", "plain_text_3500")),
        (("task=plain_text", "task.datasets=[plain_text_100]", "task.parameters.prompts=x"), ("prompts='x'",)),
        (("size=tiny",), ("tiny", "smoke")),
        (("experiment=fig5", "experiment_size=fig5_tiny"), ("fig5_tiny", "fig5_mini")),
        (("plugins=[no_such_module]",), ("no_such_module", "cannot be imported")),
        (("plugins=mine",), ("plugins='mine'", "must be a list")),
        (("tracker=mlflow",), ("mlflow", "wandb")),
        (("methods=[]",), ("methods", "at least one")),
        (("pruning.layers=[2,1]", "pruning.keep=[0.5,0.5]"), ("[2, 1]", "rise")),
        (("pruning.layers=[1,1]", "pruning.keep=[0.5,0.5]"), ("rise",)),
        (("pruning.layers=[1]", "pruning.keep=[1.5]"), ("1.5", "at most 1")),
        (("pruning.layers=[1]", "pruning.keep=[0]"), ("0", "above 0")),
        (("pruning.layers=[40]", "pruning.keep=[0.5]"), ("40", "4 layers")),
        (("task=qasper", "data.root=/nonexistent"), ("/nonexistent",)),
        (("model.path=/nonexistent",), ("/nonexistent",)),
        (("method.random_drop.keep=0.7",), ("method.random_drop.keep", "does nothing")),
        (("max_new_tokens=100000",), ("max_new_tokens=100000", "window of 2048")),
        (("task.parameters.length=5000",), ("length=5000", "choose length=")),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    bad: tuple[str, ...], words: tuple[str, ...], tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quick = [override for override in QUICK if not (bad[0].startswith("task=") and override.startswith("task"))]
    result = run_py(f"model.path={tiny_checkpoint}", f"out={out}", *quick, "limit=3", *bad)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
    assert not (out / "samples.jsonl").exists()


def test_a_sweep_goes_on_after_a_job_with_bad_input(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    result = run_py("-m", f"model.path={tiny_checkpoint}", f"out={tmp_path}/${{limit}}", *QUICK, "limit=0,1")
    assert result.returncode == 2
    assert "limit=0" in result.stderr
    assert (tmp_path / "1" / "done").exists()


def test_of_a_sweep_whose_jobs_are_one_configuration_the_newest_counts(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    done = run_py("-m", f"model.path={tiny_checkpoint}", "tag=one,two", *QUICK, "limit=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "newer" in done.stdout.partition("runs together")[2]


def test_a_tagged_sweep_of_models_by_path_ends_with_one_table_and_is_listed(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(tiny_checkpoint, twin)
    (tmp_path / "hard.yaml").write_text("layers: [1]\nkeep: [0.2]\n", encoding="utf-8")
    command = ("-m", f"model={tiny_checkpoint},twin", "pruning=hard.yaml", "tag=both", *QUICK, "limit=1")
    done = run_py(*command, "methods=[baseline,lazyllm]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    together = done.stdout.partition("all 2 runs together")[2]
    assert tiny_checkpoint.name in together
    assert "twin" in together
    runs = tmp_path / "results" / "runs"
    assert len(list((runs / "both").glob("*/done"))) == 2
    again = run_py(*command, "methods=[baseline,lazyllm]", cwd=tmp_path)
    assert again.stdout.count("is finished") == 2


def test_a_dry_run_measures_nothing_and_counts_what_would_be(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    result = run_py(
        f"model={tiny_checkpoint}", *QUICK, "limit=2", "dry_run=true", "methods=[baseline,random_drop]", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"random_drop keep=0.7.*: 5 timed runs", result.stdout)
    # (1 + 5 runs, each once more for fidelity, and its reference) x 2 samples, 1 warm-up of each of 2 methods
    assert "28 generations" in result.stdout
    assert "GiB of weights" in result.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("methods=[{method: lazyllm, pruning: {layers: [1,9], keep: [0.5,0.5], depths: null}}]",), "9"),
        (("model.attention=flash",), "model.attention=flash can't be used here"),
        (("model.chat_format=chatml",), "llama2, none, tokenizer, xgen"),
        (("task.datasets=[]",), "task.datasets=[qasper]"),
        (("methods=[{method: lazyllm, prunning: paper}]",), "did you mean pruning"),
        (("methods=[{lazyllm: {revive: false}}]",), "names no method"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    result = run_py(f"model={tiny_checkpoint}", *QUICK, "limit=2", "dry_run=true", *overrides, cwd=tmp_path)
    assert result.returncode == 2, result.stdout
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_forecasts_layers_with_a_window(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    """A window shorter than the probe, a prompt longer than it: the cache holds no more than the window."""
    windowed = shutil.copytree(tiny_checkpoint, tmp_path / "windowed")
    config = json.loads((windowed / "config.json").read_text())
    shape = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (windowed / "config.json").write_text(json.dumps(config | shape))
    long = ("task=plain_text", "task.datasets=[plain_text_1000]", "scoring=false", "max_new_tokens=4", "limit=1")
    result = run_py(f"model={windowed}", *long, "dry_run=true", "methods=[baseline]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "GiB of weights" in result.stdout


def test_a_dry_run_forecasts_the_depth_that_was_asked_for(run_py: RunPy, tmp_path: Path) -> None:
    shape = "{model_type: llama, hidden_size: 1024, intermediate_size: 2752, vocab_size: 320, num_hidden_layers: 32}"
    short = ("task=plain_text", "task.datasets=[plain_text_100]", "max_new_tokens=4", "limit=1", "methods=[baseline]")
    drawn = ("model=custom", "model.name=wide", "model.weights=random", "model.num_layers=1", f"+model.config={shape}")
    result = run_py(*drawn, *short, "dry_run=true", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "on random weights, wide's shape, 1 layer, into" in result.stdout
    assert "0.05 GiB of weights" in result.stdout
