"""The campaign's one table of settings makes runs, and a run takes the datasets' samples in turn."""

from __future__ import annotations

from pathlib import Path

import campaign
import pytest

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed
from lazybench.errors import UserError
from lazybench.run.runner import _numbered_samples
from lazybench.tasks import build_task


def test_every_part_at_every_speed_is_a_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").touch()
    models = [f"models.qwen_1_5b={tmp_path}/a.gguf", f"models.qwen_0_5b={tmp_path}/b.gguf"]
    jobs, left_out = campaign.plan(campaign.read([f"data.root={tmp_path}", f"out={tmp_path}", *models]))
    assert list(left_out) == ["models.gemma_270m=FILE is not given"]
    assert len({job.out for job in jobs}) == len(jobs)
    for job in [job for job in jobs if job.part in ("smollm2_3500", "qwen_1_5b_1500", "smollm2_latency")]:
        config = run_config(composed(prepare(job.overrides)))
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
    config = run_config(composed(prepare(overrides)))
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
        config = run_config(composed(prepare(job.overrides)))
        samples = sum(len(build_task(name, config.data).samples()) for name in config.datasets) * config.repeats
        assert f"{job.name} " in said
        assert f"{len(config.methods):3} settings x {samples:4} samples" in said
