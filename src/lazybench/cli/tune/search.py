"""Optuna tries a method's settings on half of the prompts; what loses least at each speed is confirmed on the rest.

The halves are the shards 0/2 and 1/2 of every dataset, so no prompt is in both. A trial is worth two numbers, each a
mean over the models: of the logarithm of the KL divergence, to be low, and of that of the FLOPs ratio, to be high.
Trials live in Optuna's storage: a search that was interrupted goes on, and several jobs may share one.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import sys
import warnings
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from lazybench.cli.tune.judging import Judge
from lazybench.cli.tune.outcome import Tried, best_at, confirm, write_best, write_front
from lazybench.cli.tune.space import CHOICES, choices, starting_points, suggest
from lazybench.errors import UserError
from lazybench.methods.base import Method
from lazybench.run.config import RunConfig, TuneSettings, with_model
from lazybench.run.files import FolderLock

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

TUNING, CONFIRMING = (0, 2), (1, 2)  # shards: every other sample


def tune(config: RunConfig) -> int:
    """Search until every trial is done, write the Pareto front and the best at each speed, and confirm these.

    Returns:
        0 when what was found was measured on the prompts left out (by another job of the search, if one is at it),
        1 when some of them failed.

    Raises:
        UserError: bad input; no trial reaches a speed; a folder that holds another search.
    """
    settings, method = _settings(config), searched_method(config)
    models = [with_model(config, name) for name in settings.models] or [config]
    study = _search(config, models, method)
    gc.collect()  # the search's models go before the confirmation loads its own: a GPU need not hold two
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        lock = FolderLock(config.out)
    except UserError:
        print(f"another job of this search confirms its result in {config.out}", file=sys.stderr)
        return 0
    try:
        front = {trial.number for trial in study.best_trials}
        tried = [_tried(trial, suggest(trial, method, settings), front) for trial in _completed(study)]
        write_front(config.out, tried)
        best = best_at(settings.speedups, tried)
        write_best(config.out, best)
        return confirm([*models, *(with_model(config, name) for name in settings.left_out)], best, CONFIRMING)
    finally:
        lock.release()


def _search(config: RunConfig, models: list[RunConfig], method: Method) -> Study:
    """Add trials until the study has as many as asked, or the time is over."""
    import optuna

    settings = _settings(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    study = _open_study(config, method)
    left = settings.trials - len(_completed(study))
    if left <= 0:
        return study
    print(f"search: {left} of {settings.trials} trials left", file=sys.stderr)
    judges = [Judge.prepare(one, TUNING) for one in models]

    def objective(trial: Trial) -> tuple[float, float]:
        tried = suggest(trial, method, settings)
        found = {judge.model: judge.judge(tried) for judge in judges}
        trial.set_user_attr("models", found)
        kl, ratio = (fmean(math.log(one[name]) for one in found.values()) for name in ("kl", "flops_ratio"))
        print(
            f"trial {trial.number}: FLOPs ratio {math.exp(ratio):.2f}, KL {math.exp(kl):.3g} nats: {tried.label}",
            file=sys.stderr,
        )
        return kl, ratio

    enough = optuna.study.MaxTrialsCallback(settings.trials, states=(optuna.trial.TrialState.COMPLETE,))
    study.optimize(objective, timeout=settings.timeout_s, callbacks=[enough])
    return study


def _settings(config: RunConfig) -> TuneSettings:
    assert config.tune is not None
    return config.tune


def searched_method(config: RunConfig) -> Method:
    """The method whose settings are searched.

    Raises:
        UserError: none, several, or one that can't be; a sharded run; one sample; a choice that is none.
    """
    if len(config.methods) != 1 or config.methods[0].name not in CHOICES:
        raise UserError(f"a search tunes one method: 'methods=[NAME]' with one of {', '.join(sorted(CHOICES))}")
    if config.data.shard != (0, 1):
        raise UserError("a search splits the samples itself: leave shard= out, share it with tune.job=")
    if config.data.limit == 1:
        raise UserError("limit=1 leaves no sample to confirm the settings on; a search needs limit=2 or more")
    choices(config.methods[0], _settings(config))  # a wrong name is refused before a model is loaded
    return config.methods[0]


def _open_study(config: RunConfig, method: Method) -> Study:
    """The study in its storage, new or as it stands; a storage never mixes two configurations."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    settings = _settings(config)
    storage: Any = settings.storage or JournalStorage(JournalFileBackend(str(config.out / "search.journal")))
    # what more trials may be added to: all but how long to search and what to make of the result
    same = {key: value for key, value in config.resolved.items() if key != "tune"}
    same["space"] = [settings.stages, settings.least_keep, choices(method, settings), settings.models]
    digest = hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:16]
    study = optuna.create_study(
        storage=storage,
        study_name=f"settings of {method.name}",
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )
    # moved on by every trial that stands: a resumed search must not draw its first settings again
    seed = (config.seed * 1_000 + settings.job) * 1_000 + len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)
    study.set_metric_names(["log_kl", "log_flops_ratio"])
    known = study.user_attrs.get("configuration")
    if known is None:
        study.set_user_attr("configuration", digest)
        for parameters in starting_points(method, settings):
            study.enqueue_trial(parameters)
    elif known != digest:
        raise UserError(f"{config.out} holds the search of another configuration; choose another folder with out=")
    return study


def _tried(trial: FrozenTrial, method: Method, front: set[int]) -> Tried:
    kl, ratio = map(math.exp, trial.values)
    return Tried(trial.number, kl, ratio, trial.number in front, trial.user_attrs["models"], method)


def _completed(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
