"""The schedule search: its space, its choice, and a whole search on a tiny model, interrupted and resumed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import ROOT, RunPy, run_environment
from hypothesis import given, settings
from hypothesis import strategies as st

from lazybench.config import TuneSettings
from lazybench.errors import UserError
from lazybench.pruning.schedule import PruningSchedule
from lazybench.store.reading import read_records
from lazybench.tune.outcome import best_trial
from lazybench.tune.space import check_stages, parameters_of, suggest_schedule

SEARCH = (
    "experiment=tune",
    "task=needle",
    "task.parameters.length=120",
    "max_new_tokens=4",
    "limit=6",
    "tune.loss_of=fidelity",
    "tune.loss=0.9",
    "tune.stages=2",
)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), num_layers=st.integers(2, 48), stages=st.integers(1, 4))
def test_every_draw_is_a_schedule_that_the_model_has_room_for(
    data: st.DataObject, num_layers: int, stages: int
) -> None:
    tune = TuneSettings(stages=stages)
    if stages > num_layers - 1:
        with pytest.raises(UserError, match="too many"):
            check_stages(stages, num_layers)
        return
    drawn = {f"gap_{i}": data.draw(st.floats(0, 1)) for i in range(stages)}
    drawn |= {f"keep_{i}": data.draw(st.floats(0.1, 1)) for i in range(stages)}
    schedule = suggest_schedule(optuna.trial.FixedTrial(drawn), num_layers, tune)  # PruningSchedule checks itself
    schedule.check_depth(num_layers)
    assert len(schedule.layers) == stages


@pytest.mark.parametrize("num_layers", [10, 30, 32, 80])
def test_a_known_schedule_can_be_drawn(num_layers: int) -> None:
    paper = PruningSchedule.paper(num_layers)
    drawn = suggest_schedule(optuna.trial.FixedTrial(parameters_of(paper, num_layers)), num_layers, TuneSettings())
    assert drawn == paper


def trial(speedup: float, fidelity: float, score: float) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(values=[speedup, fidelity, score])


def test_the_best_is_the_fastest_within_the_loss() -> None:
    trials = [trial(1.1, 1.0, 1.0), trial(1.5, 0.8, 0.99), trial(1.5, 0.9, 0.995), trial(3.0, 0.5, 0.98)]
    assert best_trial(TuneSettings(loss=0.01), trials) is trials[2]
    assert best_trial(TuneSettings(loss=0.02), trials) is trials[3]
    assert best_trial(TuneSettings(loss=0.01, loss_of="fidelity"), trials) is trials[0]
    with pytest.raises(UserError, match="none of 1 schedules"):
        best_trial(TuneSettings(loss=0.01), trials[3:])


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"trials": 0}, "tune.trials=0"),
        ({"loss": 1.5}, "tune.loss=1.5"),
        ({"loss_of": "scroe"}, "score"),
        ({"least_keep": 0}, "above 0"),
        ({"timeout_s": -1}, "tune.timeout_s=-1"),
        ({"trails": 3}, "trials"),
    ],
)
def test_bad_settings_are_named(block: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        TuneSettings.from_config(block)


@pytest.fixture(scope="module")
def searched(tiny_checkpoint: Path, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "run"
    done = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={out}", "tune.trials=4")
    assert done.returncode == 0, done.stderr
    assert "preset:" in done.stdout
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_confirms_its_best_on_samples_that_no_trial_saw(searched: Path) -> None:
    outcome = json.loads((searched / "search.json").read_text())
    tuning, confirming = (set(outcome[name]["needle"]) for name in ("tuning_samples", "confirming_samples"))
    assert len(tuning) == len(confirming) == 3
    assert not tuning & confirming
    (confirmation,) = searched.glob("confirmation-of-trial-*")
    assert {record.sample_id for record in read_records(confirmation / "samples.jsonl")} == confirming
    best = yaml.safe_load((searched / "best.yaml").read_text())
    table = rows(searched)
    assert len(table) == 4
    assert max(float(row["flops_ratio"]) for row in table) == outcome["best"]["flops_ratio"]
    assert outcome["best"]["layers"] == " ".join(map(str, best["layers"]))


@pytest.mark.slow
def test_the_preset_is_one_that_a_run_takes(searched: Path, tiny_checkpoint: Path, run_py: RunPy) -> None:
    from hydra.utils import instantiate

    schedule = instantiate(yaml.safe_load((searched / "best.yaml").read_text()), _convert_="all").build(4)
    assert list(schedule.layers) == yaml.safe_load((searched / "best.yaml").read_text())["layers"]


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search_and_another_model_is_refused(
    searched: Path, tiny_checkpoint: Path, run_py: RunPy
) -> None:
    before = {row["trial"]: row for row in rows(searched)}
    more = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={searched}", "tune.trials=6")
    assert more.returncode == 0, more.stderr
    after = {row["trial"]: row for row in rows(searched)}
    assert len(after) == 6
    for number, row in before.items():  # the front may move, the values stay
        assert {**after[number], "on_front": ""} == {**row, "on_front": ""}
    assert len({(row["layers"], row["keep"]) for row in after.values()}) == 6  # resuming repeats no draw
    other = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={searched}", "tune.trials=6", "seed=5")
    assert other.returncode == 2
    assert "another configuration" in other.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_two_jobs_share_one_search(tiny_checkpoint: Path, tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "run.py"), *SEARCH, f"model.path={tiny_checkpoint}"),
                *(f"out={tmp_path}/run", "tune.trials=6", f"tune.job={number}"),
            ],
            env=run_environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [job.communicate(timeout=200) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert 6 <= len(rows(tmp_path / "run")) <= 7  # the second may be inside a trial when the last one ends
    assert (tmp_path / "run" / "search.json").exists()


@pytest.mark.parametrize(
    ("bad", "words"),
    [("methods=[baseline,lazyllm]", "one method"), ("shard=0/2", "tune.job"), ("limit=1", "limit=2")],
)
def test_a_search_that_cannot_work_is_refused(
    bad: str, words: str, tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    done = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={tmp_path}/run", bad)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
