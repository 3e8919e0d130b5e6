"""Every experiment at every size, and every part of the campaign at every speed, is a run that can start."""

from __future__ import annotations

import functools
from pathlib import Path

import campaign
import pytest
from conftest import RunPy

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.experiment import ARTEFACTS, SIZES
from lazybench.cli.groups import composed, names
from lazybench.errors import UserError
from lazybench.run.config import RunConfig
from lazybench.run.reading import read_records
from lazybench.run.runner import _numbered_samples
from lazybench.tasks import build_task

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


def test_every_artefact_is_an_experiment() -> None:
    assert set(ARTEFACTS) <= set(EXPERIMENTS)


@pytest.mark.parametrize("size", SIZES)
def test_what_reads_table_1_shares_its_folder(size: str) -> None:
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
