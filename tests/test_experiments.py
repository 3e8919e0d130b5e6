"""Every experiment at every size is a run that can start; the command for them refuses bad input in one line."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from conftest import RunPy
from hydra import compose, initialize_config_dir

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.experiment import ARTEFACTS, SIZES
from lazybench.cli.groups import config_folder, names, register
from lazybench.run.config import RunConfig
from lazybench.run.reading import read_records

EXPERIMENTS = names("experiment")


@functools.cache
def composed(*overrides: str, sweep: bool = False) -> RunConfig:
    register()
    with initialize_config_dir(str(config_folder()), version_base=None):
        return run_config(compose("config", prepare(overrides)), sweep)


@pytest.mark.parametrize("size", [None, *SIZES])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_at_every_size_is_a_run(experiment: str, size: str | None) -> None:
    config = composed(f"experiment={experiment}", *([f"size={size}"] if size else []))
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
    folders = {composed(f"experiment={name}", f"size={size}").out for name in ("table1", "table2", "fig1", "fig7")}
    assert len(folders) == 1


def test_figure_6_is_one_pruning_layer_at_every_depth_and_keep_ratio() -> None:
    from lazybench.methods.lazyllm import LazyLLMMethod

    config = composed("experiment=fig6")
    schedules = [method.pruning.build(32) for method in config.methods if isinstance(method, LazyLLMMethod)]
    assert len(schedules) == 25
    assert {len(schedule.layers) for schedule in schedules} == {1}
    assert {schedule.keep[0] for schedule in schedules} == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert {schedule.layers[0] + 1 for schedule in schedules} == {3, 9, 16, 22, 28}  # layers run before pruning


def test_a_configuration_is_a_folder_and_a_tag_one_or_for_several_jobs_a_folder_of_folders() -> None:
    runs = Path("results/runs")
    parts = {composed("limit=2", *more).out for more in ((), ("shard=0/2",), ("shard=1/2",), ("seed=1",))}
    assert len(parts) == 4
    assert {path.parent for path in parts} == {runs}
    assert composed("tag=long").out == runs / "long"
    jobs = {composed("tag=long", f"seed={seed}", sweep=True).out for seed in (1, 2)}
    assert len(jobs) == 2
    assert {path.parent for path in jobs} == {runs / "long"} == {composed("tag=long", "shard=1/2").out.parent}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "smoke, mini, full"),
        (("fig6",), "smoke, mini, full"),
        (("fig8", "smoke"), "fig6"),
        (("fig6", "tiny"), "'tiny'"),
        (("fig6", "smoke", "modl=llama2"), "model"),
        (("fig6", "smoke", "limit=0"), "limit=0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str, command: RunPy) -> None:
    done = command("experiment", *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert words in line


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
