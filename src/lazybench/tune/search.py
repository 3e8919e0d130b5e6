"""Optuna tries pruning schedules on half of the samples; the best one within the loss is confirmed on the rest.

The halves are the shards 0/2 and 1/2 of every dataset, so no sample is in both. Trials live in Optuna's storage:
a search that was interrupted goes on, and several jobs may share one.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import warnings
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from lazybench.config import RunConfig, TuneSettings
from lazybench.contract import Method, Request
from lazybench.errors import UserError
from lazybench.measure.fidelity import Reference, free_tokens, quality, record_reference
from lazybench.measure.work import shares_of
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.models import LoadedModel, load_model
from lazybench.pruning.schedule import PruningSchedule
from lazybench.requests import encode, request_for
from lazybench.store.files import FolderLock
from lazybench.tasks import build_task
from lazybench.tasks.base import Sample, Task
from lazybench.tune.outcome import best_trial, confirm, write_trials
from lazybench.tune.space import check_stages, parameters_of, suggest_schedule

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

TUNING, CONFIRMING = (0, 2), (1, 2)  # shards: every other sample


def tune(config: RunConfig) -> int:
    """Search until every trial is done, then write the Pareto front and the best schedule, and confirm it.

    Returns:
        0 when the best schedule was measured on the samples left out (by another job of the search, if one is
        at it), 1 when some of them failed.

    Raises:
        UserError: bad input; no schedule within the loss; a folder that holds another search.
    """
    settings = config.tune
    assert settings is not None
    method = _method(config)
    study = _search(config, settings, method)
    gc.collect()  # the search's model goes before the confirmation loads its own: a GPU need not hold two
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        lock = FolderLock(config.out)
    except UserError:
        print(f"another job of this search confirms its result in {config.out}", file=sys.stderr)
        return 0
    try:
        trials = _completed(study)
        write_trials(config, trials, {trial.number for trial in study.best_trials})
        best = best_trial(settings, trials)
        schedule = PruningSchedule(best.user_attrs["layers"], best.user_attrs["keep"])
        return confirm(config, best, _with_schedule(method, schedule), TUNING, CONFIRMING)
    finally:
        lock.release()


def _search(config: RunConfig, settings: TuneSettings, method: LazyLLMMethod) -> Study:
    """Add trials until the study has as many as asked, or the time is over."""
    import optuna

    loaded = load_model(config.model)
    if not loaded.scores_mean_something:
        raise UserError("a schedule search needs real weights; leave model.weights=random out")
    num_layers = loaded.model.config.get_text_config().num_hidden_layers
    check_stages(settings.stages, num_layers)
    if config.threads:
        torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    study = _open_study(config, num_layers)
    left = settings.trials - len(_completed(study))
    if left <= 0:
        return study
    print(f"schedule search: {left} of {settings.trials} trials left", file=sys.stderr)
    samples = _TuningSamples.prepare(config, loaded)

    def objective(trial: Trial) -> tuple[float, float, float]:
        schedule = suggest_schedule(trial, num_layers, settings)
        trial.set_user_attr("layers", list(schedule.pruning_layers))
        trial.set_user_attr("keep", list(schedule.keep))
        speedup, agreement, score = samples.evaluate(_with_schedule(method, schedule))
        print(
            f"trial {trial.number}: {schedule.label}: FLOPs ratio {speedup:.2f}, "
            f"fidelity {agreement:.3f}, relative score {score:.3f}",
            file=sys.stderr,
        )
        return speedup, agreement, score

    enough = optuna.study.MaxTrialsCallback(settings.trials, states=(optuna.trial.TrialState.COMPLETE,))
    study.optimize(objective, timeout=settings.timeout_s, callbacks=[enough])
    return study


def _method(config: RunConfig) -> LazyLLMMethod:
    if len(config.methods) != 1 or not isinstance(config.methods[0], LazyLLMMethod):
        raise UserError("a schedule search tunes one method: 'methods=[lazyllm]'")
    if config.data.shard != (0, 1):
        raise UserError("a schedule search splits the samples itself: leave shard= out, share it with tune.job=")
    if config.data.limit == 1:
        raise UserError("limit=1 leaves no sample to confirm the schedule on; a schedule search needs limit=2 or more")
    return config.methods[0]


def _with_schedule(method: LazyLLMMethod, schedule: PruningSchedule) -> LazyLLMMethod:
    """The options of ``pruning`` (what a ratio is of, generated tokens) stay as the configuration has them."""
    pruning = replace(method.pruning, kind="steps", layers=schedule.layers, depths=None, keep=schedule.keep)
    return replace(method, pruning=pruning)


def _open_study(config: RunConfig, num_layers: int) -> Study:
    """The study in its storage, new or as it stands; a storage never mixes two configurations."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    settings = config.tune
    assert settings is not None
    storage: Any = settings.storage or JournalStorage(JournalFileBackend(str(config.out / "search.journal")))
    # what more trials may be added to: all but how long to search and what to make of the result
    same = {key: value for key, value in config.resolved.items() if key != "tune"}
    same["space"] = [settings.stages, settings.least_keep]
    digest = hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:16]
    study = optuna.create_study(
        storage=storage,
        study_name="pruning schedule",
        directions=["maximize"] * 3,
        load_if_exists=True,
    )
    # moved on by every trial that stands: a resumed search must not draw its first schedules again
    seed = (config.seed * 1_000 + settings.job) * 1_000 + len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True)
    study.set_metric_names(["flops_ratio", "fidelity_top1", "relative_score"])
    known = study.user_attrs.get("configuration")
    if known is None:
        study.set_user_attr("configuration", digest)
        for parameters in _starting_points(settings, num_layers):
            study.enqueue_trial(parameters)
    elif known != digest:
        raise UserError(f"{config.out} holds the search of another configuration; choose another folder with out=")
    return study


def _starting_points(settings: TuneSettings, num_layers: int) -> list[dict[str, float]]:
    """A schedule that loses next to nothing, so that one is within the loss, and the paper's where it fits."""
    mild = {f"gap_{stage}": 0.5 for stage in range(settings.stages)}
    mild |= {f"keep_{stage}": 0.95 for stage in range(settings.stages)}
    if settings.stages != 3 or num_layers < 10:
        return [mild]
    return [mild, parameters_of(PruningSchedule.paper(num_layers), num_layers)]


def _completed(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


@dataclass(frozen=True)
class _Tried:
    """One tuning sample and what the baseline made of it."""

    task: Task
    sample: Sample
    request: Request
    reference: Reference
    score: float  # the baseline's


class _TuningSamples:
    """The samples that every trial sees, with the baseline's output kept, which no trial needs to run again."""

    def __init__(self, loaded: LoadedModel, tried: list[_Tried]) -> None:
        self.loaded = loaded
        self.tried = tried

    @classmethod
    def prepare(cls, config: RunConfig, loaded: LoadedModel) -> _TuningSamples:
        """Run the baseline once on every tuning sample.

        Raises:
            UserError: there is none, or the baseline scores nothing, so that no loss can be told.
        """
        samples = cls(loaded, [])
        for name in config.datasets:
            task = build_task(name, replace(config.data, shard=TUNING))
            for index, sample in enumerate(task.samples()):
                request = request_for(config, loaded, task, encode(config, loaded, task, sample), index)
                reference = record_reference(Baseline(), request)
                # half precision: hundreds of these stay in memory, (steps, vocabulary) each
                kept = replace(reference, log_probabilities=reference.log_probabilities.half())
                score = samples._score(task, sample, reference.tokens)
                samples.tried.append(_Tried(task, sample, request, kept, score))
        settings = config.tune
        assert settings is not None
        if settings.loss_of == "score" and not any(one.score for one in samples.tried):
            raise UserError(
                f"the baseline scores 0 on all {len(samples.tried)} tuning samples, so no loss of score can be told; "
                "raise limit=, or search by tune.loss_of=fidelity"
            )
        return samples

    def evaluate(self, method: Method) -> tuple[float, float, float]:
        """Ideal TTFT speedup, fidelity (share of greedy tokens) and score relative to the baseline's, all means."""
        speedups: list[float] = []
        agreements: list[float] = []
        scores: list[float] = []
        for one in self.tried:
            judged = quality(method, one.request, one.reference)
            speedups.append(shares_of(judged.response.work, one.request).flops_ratio)
            agreements.append(judged.fidelity.top1)
            tokens = free_tokens(method, one.request, one.reference, judged.fidelity)
            scores.append(self._score(one.task, one.sample, tokens))
        baseline = sum(one.score for one in self.tried)
        relative = sum(scores) / baseline if baseline else 1.0  # where nothing scores, nothing is lost
        return fmean(speedups), fmean(agreements), relative

    def _score(self, task: Task, sample: Sample, tokens: torch.Tensor) -> float:
        prediction = self.loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        return task.score(self.loaded.postprocess(str(prediction)), sample)
