"""The search for settings: its space, its choice, and a whole search on tiny models, interrupted and resumed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import ROOT, RunPy, run_environment
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from lazybench.cli.choices import run_config
from lazybench.cli.groups import composed
from lazybench.cli.tune import CHOICES, DEEPEST, GAP, Tried, best_at, in_words, starting_points, suggest
from lazybench.errors import UserError
from lazybench.methods.base import Method
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.taper import Taper
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import build
from lazybench.run.config import TuneSettings
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


def test_the_papers_places_are_drawn_first() -> None:
    for drawn, ratio in zip(starting_points(TuneSettings()), (0.9, 0.7, 0.4), strict=True):
        method = suggest(FirstOf(drawn), METHODS["lazyllm"], TuneSettings())
        assert isinstance(method, LazyLLMMethod)
        assert (method.pruning.depths, method.pruning.keep) == ((0.3, 0.6, 0.9), (ratio,) * 3)


class FirstOf(optuna.trial.FixedTrial):
    """A trial of these numbers, and of the lowest where there is none."""

    def suggest_float(self, name: str, low: float, high: float, **kwargs: object) -> float:
        return float(self._params.get(name, low))


def tried(number: int, flops_ratio: float, kl: float) -> Tried:
    method = Taper(depths=(0.2, 0.5), keep=(0.5, round(0.9 - 0.1 * number, 1)), window=8)
    return Tried(number, kl, flops_ratio, method)


def test_the_best_at_a_speed_loses_least_of_all_that_reach_it() -> None:
    trials = [tried(0, 1.2, 0.01), tried(1, 1.6, 0.02), tried(2, 1.9, 0.02), tried(3, 2.2, 0.5), tried(4, 2.0, 0.7)]
    assert best_at([2.0, 1.5, 3.0], trials) == {1.5: trials[2], 2.0: trials[3]}  # 3 is out of reach
    with pytest.raises(UserError, match="none of 5 trials reaches a FLOPs ratio of 3"):
        best_at([3.0, 4.0], trials)


def test_what_was_found_is_what_methods_takes() -> None:
    pruning = PruningSchedule(depths=(0.2, 0.5), keep=(0.5, 0.8))
    best = {1.5: tried(0, 1.6, 0.01), 2.0: Tried(1, 0.1, 2.0, LazyLLMMethod(pruning))}
    text = in_words(best)
    assert list(map(float, yaml.safe_load(text))) == [1.5, 2.0]
    entries = ",".join(line.partition(": ")[2] for line in text.splitlines() if line[0] != "#")
    methods = run_config(composed([f"methods=[{entries}]"])).methods
    assert methods == tuple(trial.method for trial in best.values())


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"trials": 0}, "tune.trials=0"),
        ({"least_keep": 0}, "tune.least_keep=0"),
        ({"least_keep": 1.5}, "tune.least_keep=1.5"),
        ({"speedups": [0.9]}, "above 1"),
        ({"speedups": 2}, "must be a list"),
        ({"timeout_s": -1}, "tune.timeout_s=-1"),
        ({"trails": 3}, "trials"),
    ],
)
def test_bad_settings_are_named(block: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        build(TuneSettings, block, "tune")


@pytest.fixture(scope="module")
def searched(tiny_checkpoint: Path, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "run"
    done = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={out}", "tune.trials=4")
    assert done.returncode == 0, done.stderr
    assert "best.yaml" in done.stdout
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_confirms_what_it_found_on_prompts_that_no_trial_saw(searched: Path) -> None:
    trials = rows(searched / "trials.csv")
    assert len(trials) == 4
    assert all(float(row["values_kl"]) > 0 and float(row["values_flops_ratio"]) > 0.5 for row in trials)
    best = yaml.safe_load((searched / "best.yaml").read_text())
    assert list(best) == [1.1, 1.5]
    assert best[1.1]["last"] == 4  # what is not searched stays
    (folder,) = searched.glob("confirmation-of-*")
    records = read_records(folder / "samples.jsonl")
    assert {record.sample_id for record in records} == {"0-1", "0-3", "0-5"}
    assert {record.method for record in records} == {"baseline", "taper", "lazyllm"}  # the rival at the same ratios
    assert (folder / "done").exists()
    stored = [path.name.rpartition("-")[0] for path in (searched / "references").iterdir()]
    assert sorted(stored) == [f"needle-0-{number}" for number in range(6)]  # once for each prompt


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search_and_another_configuration_is_refused(
    searched: Path, tiny_checkpoint: Path, run_py: RunPy
) -> None:
    before = rows(searched / "trials.csv")
    more = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={searched}", "tune.trials=6")
    assert more.returncode == 0, more.stderr
    after = rows(searched / "trials.csv")
    assert len(after) == 6
    assert after[:4] == before
    assert len({tuple(row.items())[1:] for row in after}) == 6  # resuming repeats no draw
    other = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={searched}", "tune.trials=6", "seed=5")
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
    # the second may be inside a trial when the last one ends
    assert 6 <= len(rows(tmp_path / "run" / "trials.csv")) <= 7
    best = yaml.safe_load((tmp_path / "run" / "best.yaml").read_text())
    assert {entry["method"] for entry in best.values()} == {"lazyllm"}
    assert list((tmp_path / "run").glob("confirmation-of-*/done"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("methods=[baseline,taper]", "one method"),
        ("methods=[fastkv]", "lazyllm, taper"),
        ("shard=0/2", "tune.job"),
        ("limit=1", "limit=2"),
        ("model.weights=random", "real weights"),
    ],
)
def test_a_search_that_cannot_work_is_refused(
    bad: str, words: str, tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    done = run_py(*SEARCH, f"model.path={tiny_checkpoint}", f"out={tmp_path}/run", bad)
    assert done.returncode == 2
    assert words in done.stderr.strip().splitlines()[-1]
