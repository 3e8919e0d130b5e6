"""The search for settings: its space, its choice, and a whole search on tiny models, interrupted and resumed."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import ROOT, RunPy, run_environment
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from lazybench.cli.tune.outcome import Tried, best_at, write_best
from lazybench.cli.tune.space import CHOICES, DEEPEST, GAP, parameters_of, starting_points, suggest
from transformers import LlamaConfig

from lazybench.cli.groups import composed, config_folder, register
from lazybench.errors import UserError
from lazybench.methods.base import Method
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.taper import PRESETS, Taper
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import build
from lazybench.report.statistics import KL_FLOOR
from lazybench.run.config import TuneSettings, run_config, with_model
from lazybench.run.reading import read_records

SEARCH = (
    "experiment=tune",
    "task=needle",
    "task.parameters.length=120",
    "max_new_tokens=4",
    "limit=6",
    "methods=[{method: taper, first: 0, last: 4}]",
    "tune.stages=3",
    "tune.speedups=[1.1,1.5,90]",
)
METHODS: dict[str, Method] = {"taper": Taper(), "lazyllm": LazyLLMMethod(PruningSchedule(depths=(0.5,), keep=(0.5,)))}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(METHODS)), layers=st.integers(2, 48), stages=st.integers(1, 5))
def test_every_draw_is_a_method_that_any_model_has_room_for(
    data: st.DataObject, name: str, layers: int, stages: int
) -> None:
    drawn = {"stages": data.draw(st.integers(1, stages))}
    drawn |= {f"gap_{i}": data.draw(st.floats(*GAP)) for i in range(stages)}
    drawn |= {f"keep_{i}": data.draw(st.floats(0.1, 1)) for i in range(stages)}
    drawn |= {name: data.draw(st.sampled_from(values)) for name, values in CHOICES[name].items()}
    tune = TuneSettings(stages=stages, least_keep=0.1)
    method = suggest(optuna.trial.FixedTrial(drawn), METHODS[name], tune)
    config = LlamaConfig(num_hidden_layers=layers)
    policy = method.policy(config)  # type: ignore[attr-defined] # checks itself
    policy.check_depth(layers)
    depths = method.depths if isinstance(method, Taper) else method.pruning.depths  # type: ignore[attr-defined]
    assert 1 <= len(depths) <= drawn["stages"]
    assert max(depths) <= DEEPEST
    assert all(getattr(method, key) == drawn[key] for key in CHOICES[name])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_known_already_can_be_drawn(name: str) -> None:
    tune = TuneSettings()
    for depths, keep in [((0.3, 0.6, 0.9), (0.7, 0.7, 0.7)), *PRESETS.values()]:
        chosen = {key: values[0] for key, values in CHOICES[name].items()}
        trial = optuna.trial.FixedTrial(parameters_of(depths, keep, tune) | chosen)
        method = suggest(trial, METHODS[name], tune)
        found = method if isinstance(method, Taper) else method.pruning  # type: ignore[attr-defined]
        assert (found.depths, found.keep) == (depths, keep)
    assert len(starting_points(METHODS[name], TuneSettings(stages=3))) == 3  # the presets have four


def test_a_held_choice_stays_as_the_method_has_it() -> None:
    tune = TuneSettings(stages=1, held=("window", "chunk"))
    drawn = starting_points(Taper(window=5), tune)
    assert not any({"window", "chunk"} & set(parameters) for parameters in drawn)
    places = {"stages": 1, "gap_0": 0.3, "keep_0": 0.5}
    rest = {name: values[-1] for name, values in CHOICES["taper"].items() if name not in tune.held}
    method = suggest(optuna.trial.FixedTrial(places | rest), Taper(window=5), tune)
    assert isinstance(method, Taper)
    assert (method.window, method.chunk) == (5, Taper().chunk)
    assert all(getattr(method, name) == value for name, value in rest.items())
    with pytest.raises(UserError, match=r"tune\.held=placement is no choice of taper; allowed: one of budget, window"):
        starting_points(Taper(), TuneSettings(held=("placement",)))
    with pytest.raises(UserError, match=r"tune\.held=window is no choice of lazyllm"):
        starting_points(METHODS["lazyllm"], TuneSettings(held=("window",)))


def tried(number: int, flops_ratio: float, kl: float) -> Tried:
    method = Taper(depths=(0.2, 0.5), keep=(0.5, round(0.9 - 0.1 * number, 1)), window=8)
    return Tried(number, kl, flops_ratio, True, {}, method)


def test_the_best_at_a_speed_loses_least_of_all_that_reach_it() -> None:
    trials = [tried(0, 1.2, 0.01), tried(1, 1.6, 0.02), tried(2, 1.9, 0.02), tried(3, 2.2, 0.5), tried(4, 2.0, 0.7)]
    assert best_at([2.0, 1.5, 3.0], trials) == {1.5: trials[2], 2.0: trials[3]}  # 3 is out of reach
    with pytest.raises(UserError, match="none of 5 trials reaches a FLOPs ratio of 3"):
        best_at([3.0, 4.0], trials)


def test_what_was_found_is_what_methods_takes(tmp_path: Path) -> None:
    pruning = PruningSchedule(depths=(0.2, 0.5), keep=(0.5, 0.8))
    found = {1.5: tried(0, 1.6, 0.01), 2.0: Tried(1, 0.1, 2.0, True, {}, LazyLLMMethod(pruning))}
    write_best(tmp_path, found)
    lines = [line for line in (tmp_path / "best.yaml").read_text().splitlines() if line[0] != "#"]
    assert list(map(float, yaml.safe_load((tmp_path / "best.yaml").read_text()))) == [1.5, 2.0]
    entries = ",".join(line.partition(": ")[2] for line in lines)
    register()
    with initialize_config_dir(str(config_folder()), version_base=None):
        methods = run_config(compose("config", [f"methods=[{entries}]"])).methods
    assert methods == tuple(one.method for one in found.values())


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"trials": 0}, "tune.trials=0"),
        ({"least_keep": 0}, "tune.least_keep=0"),
        ({"least_keep": 1.5}, "tune.least_keep=1.5"),
        ({"speedups": [0.9]}, "above 1"),
        ({"speedups": 2}, "must be a list"),
        ({"held": "window"}, "must be a list"),
        ({"models": ["smollm2"], "left_out": ["smollm2"]}, "twice"),
        ({"timeout_s": -1}, "tune.timeout_s=-1"),
        ({"trails": 3}, "trials"),
    ],
)
def test_bad_settings_are_named(block: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        build(TuneSettings, block, "tune")


@pytest.fixture(scope="module")
def twins(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two models for the search and one that is left out of it, all with the same weights."""
    root = tmp_path_factory.mktemp("models")
    for name in ("one", "two", "third"):
        shutil.copytree(tiny_checkpoint, root / name)
    return str(root)


@pytest.fixture(scope="module")
def searched(twins: str, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "run"
    done = run_py(*SEARCH, *models(twins), f"out={out}", "tune.trials=4")
    assert done.returncode == 0, done.stderr
    assert "best.yaml" in done.stdout
    return out


def models(twins: str) -> tuple[str, str]:
    return f"tune.models=[{twins}/one,{twins}/two]", f"tune.left_out=[{twins}/third]"


def test_each_model_runs_as_the_runs_own_unless_its_file_says_otherwise(tiny_checkpoint: Path) -> None:
    asked = (f"model.path={tiny_checkpoint}", "model.dtype=bfloat16", "task=needle")
    config = run_config(composed([*asked, "model.prompt_limit_tokens=700"]))
    named = with_model(config, "llama2").model
    assert (named.name, named.dtype) == ("llama2", "bfloat16")
    own = with_model(run_config(composed(asked)), "llama2").model.prompt_limit_tokens
    assert (named.prompt_limit_tokens, own) == (3500, 3500)
    assert with_model(config, str(tiny_checkpoint)).model.prompt_limit_tokens == 700


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_confirms_what_it_found_on_prompts_that_no_trial_saw(searched: Path) -> None:
    front = rows(searched / "front.csv")
    assert len(front) == 4
    for row in front:  # models with the same weights find the same, and so does their mean
        for name in ("kl", "flops_ratio"):
            assert row[f"one {name}"] == row[f"two {name}"]
            assert math.isclose(float(row[name]), float(row[f"one {name}"]), rel_tol=1e-4)
        assert float(row["one first_kl"]) >= KL_FLOOR
        assert float(row["one later_kl"]) >= KL_FLOOR
    on_front = [row for row in front if row["on_front"] == "True"]
    values = [(float(row["flops_ratio"]), float(row["kl"])) for row in on_front]
    assert values == sorted(values)  # what is faster loses more
    best = yaml.safe_load((searched / "best.yaml").read_text())
    assert list(best) == [1.1, 1.5]
    assert best[1.1]["last"] == 4  # what is not searched stays
    (folder,) = searched.glob("confirmation-of-*")
    confirming = {record.sample_id for path in folder.iterdir() for record in read_records(path / "samples.jsonl")}
    assert {path.name for path in folder.iterdir()} == {"one", "two", "third"}
    assert confirming == {"0-1", "0-3", "0-5"}
    stored = {path.name.rpartition("-")[0] for path in (searched / "references").iterdir()}
    assert stored == {f"needle-0-{number}" for number in range(6)}
    assert len(list((searched / "references").iterdir())) == 3 * 3 + 2 * 3  # once for each model and prompt


@pytest.mark.slow
def test_what_was_found_stands_beside_lazyllm_at_the_same_ratio(searched: Path) -> None:
    confirmed = rows(searched / "confirmation.csv")
    assert {row["model"] for row in confirmed} == {"one", "two", "third"}
    for row in confirmed:
        assert row["n"] == "3"
        assert float(row["low"]) <= float(row["kl_ratio"]) <= float(row["high"])


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search_and_another_configuration_is_refused(
    searched: Path, twins: str, run_py: RunPy
) -> None:
    before = {row["trial"]: row for row in rows(searched / "front.csv")}
    more = run_py(*SEARCH, *models(twins), f"out={searched}", "tune.trials=6")
    assert more.returncode == 0, more.stderr
    after = {row["trial"]: row for row in rows(searched / "front.csv")}
    assert len(after) == 6
    for number, row in before.items():  # the front may move, the values stay
        assert {**after[number], "on_front": ""} == {**row, "on_front": ""}
    assert len({row["settings"] for row in after.values()}) == 6  # resuming repeats no draw
    other = run_py(*SEARCH, *models(twins), f"out={searched}", "tune.trials=6", "seed=5")
    assert other.returncode == 2
    assert "another configuration" in other.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_two_jobs_share_one_search_for_lazyllms_schedule(tiny_checkpoint: Path, tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "run.py"), *SEARCH, f"model.path={tiny_checkpoint}"),
                *(f"out={tmp_path}/run", "methods=[lazyllm]", "tune.trials=6", f"tune.job={number}"),
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
    assert (
        6 <= len(rows(tmp_path / "run" / "front.csv")) <= 7
    )  # the second may be inside a trial when the last one ends
    best = yaml.safe_load((tmp_path / "run" / "best.yaml").read_text())
    assert {entry["method"] for entry in best.values()} == {"lazyllm"}
    assert rows(tmp_path / "run" / "confirmation.csv")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("methods=[baseline,taper]", "one method"),
        ("methods=[fastkv]", "lazyllm, taper"),
        ("shard=0/2", "tune.job"),
        ("limit=1", "limit=2"),
        ("tune.models=[smolm2]", "smollm2"),
        ("model.weights=random", "real weights"),
    ],
)
def test_a_search_that_cannot_work_is_refused(
    bad: str, words: str, tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    done = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={tmp_path}/run", bad)
    assert done.returncode == 2
    assert words in done.stderr.strip().splitlines()[-1]
