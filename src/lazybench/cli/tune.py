"""Optuna tries a method's settings on half of the prompts; what loses least at each speed is measured on the rest.

A trial is worth its KL divergence from the plain model's answers and its FLOPs ratio: no clock decides. Trials live in
Optuna's storage: a search goes on where it was interrupted, and jobs may share one. The run's folder holds trials.csv,
best.yaml (for each speed an entry of ``methods=[...]``) and confirmation-of-<trials>, an ordinary run of these and of
LazyLLM at many keep ratios on prompts that no trial has seen.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from statistics import geometric_mean, harmonic_mean
from typing import Any, cast

import optuna
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import BaseTrial, Trial, TrialState

from lazybench.errors import UserError
from lazybench.measure.fidelity import Reference, quality
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.request import Request
from lazybench.methods.taper import Taper
from lazybench.models import load_model
from lazybench.pruning.schedule import DEPTHS, PruningSchedule
from lazybench.report.of_run import write_run_report
from lazybench.report.statistics import KL_FLOOR
from lazybench.run.config import RunConfig, TuneSettings
from lazybench.run.files import write_atomically
from lazybench.run.measuring import encode, reference_store, request_for
from lazybench.run.runner import run
from lazybench.tasks import build_task

COMPLETE = (TrialState.COMPLETE,)
TUNING, CONFIRMING = (0, 2), (1, 2)  # shards: every other sample
KEEP_BESIDE = (0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.03)  # LazyLLM's, from 1.3x to almost its 3.3x
GAP = (0.04, 0.4)  # share of the depth from one pruning to the next
DEEPEST = 0.95  # behind it little is left to save
CHOICES: Mapping[
    str, Mapping[str, Sequence[Any]]
] = {  # beside places and keep ratios, what the published searches varied
    "lazyllm": {},
    "taper": {
        "budget": ("entered", "context", "mass"),
        "window": (1, 8, 32, 64, 128),
        "chunk": (1, 8, 16, 32, 64),
        "first": (0, 4, 64),
        "last_share": (0.0, 0.08, 0.15, 0.25),
    },
}
Judged = tuple[Request, Callable[[], Reference]]


@dataclass(frozen=True)
class Tried:
    """One trial: a method's settings and what they are worth."""

    number: int
    kl: float  # nats, the geometric mean over the prompts
    flops_ratio: float  # of all prompts' work together
    method: Method


def tune(config: RunConfig) -> int:
    """Search until every trial is done; the first job then writes the best at each speed and confirms these.

    Returns:
        0 done, 1 when some of the confirming measurements failed.

    Raises:
        UserError: bad input; no trial reaches a speed; a folder that holds another search.
    """
    settings, method = cast(TuneSettings, config.tune), searched_method(config)
    study = _search(config, settings, method)
    if settings.job:
        return 0
    table = study.trials_dataframe(("number", "values", "params")).to_csv(index=False, float_format="%.6g")
    write_atomically(config.out / "trials.csv", table.encode())
    done = study.get_trials(states=COMPLETE)
    tried = [Tried(trial.number, trial.values[0], trial.values[1], suggest(trial, method, settings)) for trial in done]
    best = best_at(settings.speedups, tried)
    write_atomically(config.out / "best.yaml", in_words(best).encode())
    return _confirm(config, best)


def suggest(trial: BaseTrial, method: Method, settings: TuneSettings) -> Method:
    """``method`` with the settings of one trial; what is not searched stays as the configuration has it."""
    stages = trial.suggest_int("stages", 1, settings.stages)
    gaps = [trial.suggest_float(f"gap_{stage}", *GAP) for stage in range(settings.stages)]
    keep = [trial.suggest_float(f"keep_{stage}", settings.least_keep, 1.0) for stage in range(settings.stages)]
    chosen = {name: trial.suggest_categorical(name, values) for name, values in CHOICES[method.name].items()}
    depths = [round(depth, 2) for depth in accumulate(gaps)][:stages]
    drawn = [(depth, round(ratio, 2)) for depth, ratio in zip(depths, keep, strict=False) if depth <= DEEPEST]
    places: dict[str, Any] = {"depths": tuple(depth for depth, _ in drawn), "keep": tuple(ratio for _, ratio in drawn)}
    if isinstance(method, LazyLLMMethod):
        return replace(method, pruning=replace(method.pruning, layers=None, **places))
    assert isinstance(method, Taper)
    return replace(method, preset=None, **places, **chosen)


def starting_points(settings: TuneSettings) -> list[dict[str, Any]]:
    """What is drawn first: the paper's places with equal keep ratios, gently and harshly; the rest at random."""
    gaps = {f"gap_{stage}": 0.3 for stage in range(min(3, settings.stages))}
    return [
        {"stages": len(gaps), **gaps, **{name.replace("gap", "keep"): max(ratio, settings.least_keep) for name in gaps}}
        for ratio in (0.9, 0.7, 0.4)
    ]


def searched_method(config: RunConfig) -> Method:
    """The method whose settings are searched.

    Raises:
        UserError: none, several, or one that can't be; a sharded run; one sample.
    """
    if len(config.methods) != 1 or config.methods[0].name not in CHOICES:
        raise UserError(f"a search tunes one method: 'methods=[NAME]' with one of {', '.join(sorted(CHOICES))}")
    if config.data.shard != (0, 1):
        raise UserError("a search splits the samples itself: leave shard= out, share it with tune.job=")
    if config.data.limit == 1:
        raise UserError("limit=1 leaves no sample to confirm the settings on; a search needs limit=2 or more")
    return config.methods[0]


def best_at(speedups: Sequence[float], tried: Sequence[Tried]) -> dict[float, Tried]:
    """For each FLOPs ratio that some trial reaches: of those at that ratio or above the one of the lowest divergence.

    Raises:
        UserError: none reaches any of them.
    """
    best = {}
    for speedup in sorted(speedups):
        if reached := [trial for trial in tried if trial.flops_ratio >= speedup - 1e-9]:
            best[speedup] = min(reached, key=lambda trial: (trial.kl, -trial.flops_ratio))
    if not best:
        raise UserError(
            f"none of {len(tried)} trials reaches a FLOPs ratio of {min(speedups):g}; all are in trials.csv; "
            "raise tune.trials= or lower tune.least_keep="
        )
    return best


def in_words(best: Mapping[float, Tried]) -> str:
    """best.yaml: ``2: {method: taper, depths: [...], ...}``."""
    text = ""
    for speedup, trial in best.items():
        entry = {"method": trial.method.name, **json.loads(json.dumps(trial.method.params))}
        line = yaml.safe_dump(entry, default_flow_style=True, width=10_000, sort_keys=False)
        text += f"# trial {trial.number}: FLOPs ratio {trial.flops_ratio:.2f}, KL divergence {trial.kl:.3g} nats\n"
        text += f"{speedup:g}: {line}"
    return text


def _search(config: RunConfig, settings: TuneSettings, method: Method) -> optuna.Study:
    """Add trials until the study has as many as asked, or the time is over."""
    if config.threads:
        torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    study = _open_study(config, settings, method)
    if (left := settings.trials - len(study.get_trials(states=COMPLETE))) <= 0:
        return study
    print(f"search: {left} of {settings.trials} trials left", file=sys.stderr)
    prompts = _prompts(config)

    def objective(trial: Trial) -> tuple[float, float]:
        tried = suggest(trial, method, settings)
        kl, ratio = judge(tried, prompts)
        print(f"trial {trial.number}: FLOPs ratio {ratio:.2f}, KL {kl:.3g} nats: {tried.label}", file=sys.stderr)
        return kl, ratio

    enough = optuna.study.MaxTrialsCallback(settings.trials, states=COMPLETE)
    study.optimize(objective, timeout=settings.timeout_s, callbacks=[enough])
    return study


def _prompts(config: RunConfig) -> list[Judged]:
    """Half of the prompts; what the plain model made of each lies on disk, shared by all jobs."""
    loaded = load_model(config.model)
    if not loaded.scores_mean_something:
        raise UserError("a search needs real weights; leave model.weights=random out")
    store = reference_store(config, loaded)
    prompts: list[Judged] = []
    for task in (build_task(name, replace(config.data, shard=TUNING)) for name in config.datasets):
        for index, sample in enumerate(task.samples()):
            request = request_for(config, loaded, task, encode(config, loaded, task, sample), index)
            names = {"task": task.name, "data_fingerprint": task.fingerprint, "sample_id": sample.sample_id}
            prompts.append((request, partial(store.get, request, **names)))
    return prompts


def judge(method: Method, prompts: Sequence[Judged]) -> tuple[float, float]:
    """KL divergence from the plain model in nats, the geometric mean; and the FLOPs ratio of all prompts together."""
    judged = [(quality(method, request, reference()), request) for request, reference in prompts]
    kl = [max(found.fidelity.kl, KL_FLOOR) for found, _ in judged]
    return geometric_mean(kl), harmonic_mean(
        [shares_of(found.response.work, asked).flops_ratio for found, asked in judged]
    )


def _open_study(config: RunConfig, settings: TuneSettings, method: Method) -> optuna.Study:
    """The study in its storage, new or as it stands; a storage never mixes two configurations."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    storage: Any = settings.storage or JournalStorage(JournalFileBackend(str(config.out / "search.journal")))
    # what more trials may be added to: all but how long to search and what to make of the result
    same = {key: value for key, value in config.resolved.items() if key != "tune"}
    same["space"] = [settings.stages, settings.least_keep, CHOICES[method.name]]
    digest = hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:16]
    name = f"settings of {method.name}"
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["minimize", "maximize"], load_if_exists=True
    )
    # moved on by every trial that stands: a resumed search must not draw its first settings again
    seed = (config.seed * 1_000 + settings.job) * 1_000 + len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)
    study.set_metric_names(["kl", "flops_ratio"])
    known = study.user_attrs.get("configuration")
    if known is None:
        study.set_user_attr("configuration", digest)
        for parameters in starting_points(settings):
            study.enqueue_trial(parameters)
    elif known != digest:
        raise UserError(f"{config.out} holds the search of another configuration; choose another folder with out=")
    return study


def _confirm(config: RunConfig, best: Mapping[float, Tried]) -> int:
    """Measure what was found on the prompts left out, beside LazyLLM; gives the exit code of the measurements."""
    beside = [LazyLLMMethod(PruningSchedule(depths=DEPTHS, keep=(keep,) * 3)) for keep in KEEP_BESIDE]
    methods = list(dict.fromkeys([Baseline(), *(trial.method for trial in best.values()), *beside]))
    how: dict[str, Any] = {"tune": None, "timing": False, "fidelity": True, "scoring": False}
    named = [{"method": method.name, **method.params} for method in methods]
    out = config.out / f"confirmation-of-{'-'.join(map(str, sorted({trial.number for trial in best.values()})))}"
    confirmation = replace(
        config,
        **how,
        methods=tuple(methods),
        data=replace(config.data, shard=CONFIRMING),
        references=config.references or config.out / "references",
        out=out,
        resolved={**config.resolved, **how, "shard": f"{CONFIRMING[0]}/{CONFIRMING[1]}", "methods": named},
    )
    code = run(confirmation, write_run_report)
    print(f"settings for methods=[...]: {config.out / 'best.yaml'}; every trial: {config.out / 'trials.csv'}")
    print(f"matched with LazyLLM: lazybench leaderboard {out}")
    return code
