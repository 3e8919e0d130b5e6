"""Every experiment at every size, and every part of the campaign at every speed, is a run that can start."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import campaign
import pytest
import yaml
from conftest import RunPy
from tiny_models import random_prompt, tiny_model

from lazybench import LazyLLM, PruningSchedule
from lazybench.cli.choices import prepare, run_config
from lazybench.cli.experiment import ARTEFACTS, SIZES
from lazybench.cli.groups import composed, names
from lazybench.errors import UserError
from lazybench.pruning.budgets import Revival
from lazybench.run.config import RunConfig
from lazybench.run.reading import read_records
from lazybench.run.runner import _numbered_samples
from lazybench.tasks import DataSettings, build_task

EXPERIMENTS = names("experiment")


@functools.cache
def configured(*overrides: str, sweep: bool = False) -> RunConfig:
    return run_config(composed(prepare(overrides)), sweep)


@pytest.mark.parametrize("size", [None, *SIZES])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_at_every_size_is_a_run(experiment: str, size: str | None) -> None:
    config = configured(f"experiment={experiment}", *([f"size={size}"] if size else []))
    assert config.methods
    if size == "smoke":
        assert "longbench" not in config.task_name  # a fresh machine has no data
        assert config.data.limit is not None
    if size == "full":
        assert config.model.name == "llama2"
        assert config.data.limit is None
        assert config.warmup == 5
        assert len(config.datasets) == 16


@pytest.mark.parametrize("size", SIZES)
def test_what_reads_table_1_shares_its_folder(size: str) -> None:
    assert set(ARTEFACTS) <= set(EXPERIMENTS)
    folders = {configured(f"experiment={name}", f"size={size}").out for name in ("table1", "table2", "fig1", "fig7")}
    assert len(folders) == 1


def test_figure_6_is_one_pruning_layer_at_every_depth_and_keep_ratio() -> None:
    from lazybench.methods.lazyllm import LazyLLMMethod

    config = configured("experiment=fig6")
    schedules = [method.pruning.build(32) for method in config.methods if isinstance(method, LazyLLMMethod)]
    assert len(schedules) == 25
    assert {len(schedule.layers) for schedule in schedules} == {1}
    assert {schedule.keep[0] for schedule in schedules} == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert {schedule.layers[0] + 1 for schedule in schedules} == {3, 9, 16, 22, 28}  # layers run before pruning


def test_a_configuration_is_a_folder_and_a_tag_one_or_for_several_jobs_a_folder_of_folders() -> None:
    runs = Path("results/runs")
    parts = {configured("limit=2", *more).out for more in ((), ("shard=0/2",), ("shard=1/2",), ("seed=1",))}
    assert len(parts) == 4
    assert {path.parent for path in parts} == {runs}
    assert configured("tag=long").out == runs / "long"
    jobs = {configured("tag=long", f"seed={seed}", sweep=True).out for seed in (1, 2)}
    assert len(jobs) == 2
    assert {path.parent for path in jobs} == {runs / "long"} == {configured("tag=long", "shard=1/2").out.parent}


def test_every_part_at_every_speed_is_a_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").touch()
    models = [f"models.qwen_1_5b={tmp_path}/a.gguf", f"models.qwen_0_5b={tmp_path}/b.gguf"]
    jobs, left_out = campaign.plan(campaign.read([f"data.root={tmp_path}", f"out={tmp_path}", *models]))
    assert list(left_out) == ["models.gemma_270m=FILE is not given"]
    assert len({job.out for job in jobs}) == len(jobs)
    for job in [job for job in jobs if job.part in ("smollm2_3500", "qwen_1_5b_1500", "smollm2_latency")]:
        config = configured(*job.overrides)
        assert config.methods[0].name == "baseline"
        assert config.threads == 1
        if job.part == "qwen_1_5b_1500" and job.speed == 2:
            assert config.methods[-1].draft.path == tmp_path / "b.gguf"  # type: ignore[attr-defined]


def test_what_is_not_given_is_named_and_keys_are_checked() -> None:
    settings = campaign.read(["part.smollm2_1500.run.task.datasets=[lcc]", "limit=1", "speeds=[2]"])
    jobs, left_out = campaign.plan(settings)
    assert {job.part for job in jobs} == {"smollm2_needle", "smollm2_latency"}
    assert "smollm2_1500" in left_out["data.root=FOLDER (or hub) is not given"]
    assert "task.datasets" not in settings["part"]["smollm2_3500"]["run"]
    for wrong in ("part.smollm_1500.limit=2", "speed=2", "parts=[x]", "limit"):
        with pytest.raises(UserError):
            campaign.read([wrong])


WRONG = ("speeds=2", "speeds=[7]", "part.smollm2_1500.limit=x", "shards=0", "models=3", "out=[", "rate=fast", "limit=0")


@pytest.mark.parametrize("wrong", [*WRONG, "parts=smollm2_1500", "methods=taper"])
def test_a_value_of_another_type_is_one_line(wrong: str) -> None:
    with pytest.raises(UserError) as refused:
        campaign.read([wrong])
    assert wrong.partition("=")[0].removesuffix("s") in str(refused.value)


def test_a_speed_is_a_number_however_it_is_written() -> None:
    assert campaign.plan(campaign.read(["speeds=[2.0]"]))[0]


@pytest.mark.parametrize("shard", ["0/1", "1/2"])
def test_a_run_takes_a_sample_of_every_dataset_in_turn(shard: str) -> None:
    overrides = ["task.datasets=[needle,stdlib_retrieval]", "limit=4", f"shard={shard}"]
    config = configured(*overrides)
    found = _numbered_samples(config, [build_task(name, config.data) for name in config.datasets])
    places = range(4) if shard == "0/1" else (1, 3)
    assert [(place, task.name) for task, place, _ in found] == [
        (place, name) for place in places for name in ("needle", "stdlib_retrieval")
    ]


def test_a_forecast_builds_each_task_once_and_counts_what_runs_would_measure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs, _ = campaign.plan(campaign.read(["parts=[smollm2_needle,smollm2_latency]"]))
    campaign.LENGTHS.clear()
    campaign.forecast(jobs, 30.0)
    said = capsys.readouterr().out
    assert len(campaign.LENGTHS) == 3 + 1  # three lengths of needles, at every speed
    for job in jobs:
        config = configured(*job.overrides)
        samples = sum(len(build_task(name, config.data).samples()) for name in config.datasets) * config.repeats
        assert f"{job.name} " in said
        assert f"{len(config.methods):3} settings x {samples:4} samples" in said


@pytest.mark.slow
def test_an_experiment_runs_its_sweep_and_builds_its_artefact_and_measures_nothing_twice(
    tiny_checkpoint: Path, tmp_path: Path, command: RunPy
) -> None:
    small = (f"model.path={tiny_checkpoint}", "task.parameters.length=150", "max_new_tokens=4")
    for name in ("table1", "fig7", "fig2"):
        done = command("experiment", name, "smoke", *small)
        assert done.returncode == 0, done.stderr
        artefacts = tmp_path / "results" / "artefacts" / f"{name}-smoke"
        assert {"index.html", "table.md", f"{name}.md" if name == "table1" else f"{name}.png"} <= {
            path.name for path in artefacts.iterdir()
        }
    runs = [read_records(path) for path in (tmp_path / "results" / "runs").rglob("samples.jsonl")]
    # table 1's and figure 7's one run: five methods, random token drop five times; figure 2's: the baseline
    assert sorted(map(len, runs)) == [1, 9]


SHAPE = "+model.config={model_type: llama, vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64}"  # noqa: E501


def latency(run_py: RunPy, out: Path, lengths: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Prompts of exact lengths, every method generating the same number of tokens, no score."""
    return run_py("experiment=latency", f"task.datasets=[{lengths}]", "repeats=1", f"out={out}", *more)


def test_prompts_have_exactly_the_length_asked_for(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    samples = build_task("plain_text_50", DataSettings(parameters={"prompts": 3})).samples()
    assert len({sample.prompt for sample in samples}) == 3  # every stretch is another text
    done = latency(run_py, tmp_path, "plain_text_100,plain_text_333", f"model.path={tiny_checkpoint}")
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "samples.jsonl")
    assert {(record.task, record.prompt_tokens) for record in records} == {(f"plain_text_{n}", n) for n in (100, 333)}
    assert {record.output_tokens for record in records} == {64}
    assert {record.method for record in records} == {"baseline", "lazyllm"}
    assert all(record.score is None for record in records)
    assert "score" not in done.stdout
    for part in ("TTFT speedup", "FLOPs ratio", "decoding step x"):
        assert part in done.stdout
    head = (tmp_path / "summary.csv").read_text().split("\n", 1)[0].split(",")
    assert {"flops_ratio", "efficiency", "generation_speedup", "memory_ratio"} <= set(head)


def test_random_weights_have_room_for_any_length(run_py: RunPy, tmp_path: Path) -> None:
    random = ("model=custom", "model.weights=random", SHAPE)
    done = latency(run_py, tmp_path, "plain_text_100", *random, "task.parameters.prompts=1")
    assert done.returncode == 0, done.stderr
    facts = yaml.safe_load((tmp_path / "provenance.json").read_text())
    assert facts["model"]["window_tokens"] == 164
    assert "random weights" in (tmp_path / "table.md").read_text()


# experiment=gpu, as far as a CPU can tell: its way through, its profile of revived tokens
LIKE_TEXT = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.7), revival=Revival(like="smollm2"))


def test_as_many_tokens_come_back_as_in_real_text():
    model, prompt = tiny_model("llama"), random_prompt(200, seed=1)
    with LazyLLM(model, LIKE_TEXT) as lazy:
        model.generate(prompt, max_new_tokens=12, do_sample=False)
    revived = [step.revived[1:] for step in lazy.trace.steps[1:]]
    wanted = [tuple(LIKE_TEXT.revival.most_in(stage, step, 200) for stage in (1, 2, 3)) for step in range(1, 12)]
    assert revived[0] == wanted[0] == (14, 17, 16)  # 7.0%, 8.5% and 8.1% of 200
    assert all(
        fewer <= most for counts in zip(revived, wanted, strict=True) for fewer, most in zip(*counts, strict=True)
    )
    with LazyLLM(model, PruningSchedule((0, 1, 2), (0.7, 0.7, 0.7))) as lazy:
        model.generate(prompt, max_new_tokens=3, do_sample=False)
    assert sum(lazy.trace.steps[1].revived) > sum(wanted[0])  # what random weights would bring back


@pytest.mark.slow
def test_it_runs_at_reduced_depth_on_a_cpu(run_py: RunPy, tmp_path: Path):
    methods = "methods=[baseline,{method: lazyllm, pruning: {revival: {like: smollm2}}}]"
    small = ("size=smoke", "model=smollm2", "model.num_layers=2", "model.device=cpu", "max_new_tokens=4")
    done = run_py("experiment=gpu", *small, methods, f"out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    baseline, lazy = sorted(read_records(tmp_path / "run" / "samples.jsonl"), key=lambda record: record.method)
    assert (baseline.method, lazy.method) == ("baseline", "lazyllm")
    assert lazy.params == {"pruning": {"revival": {"like": "smollm2"}}}
    assert lazy.details["revived_tokens_per_step"] > 0
    assert baseline.ttft_s > 0
    assert (tmp_path / "run" / "index.html").exists()
