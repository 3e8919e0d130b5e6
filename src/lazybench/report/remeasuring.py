"""``verify --remeasure N``: records of a run folder measured anew, from its configuration taken as data.

Model, methods and settings are built as a run's own are, from known fields alone. Weights, precision and data
must be those that the run noted; the hub is not asked, and no code of a checkpoint is run.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lazybench.errors import UserError, naming
from lazybench.models import LoadedModel, load_model
from lazybench.models.spec import DTYPES
from lazybench.report.checks import Check, where
from lazybench.report.data_at_hand import check_scorer, data_settings, measured_task, offline
from lazybench.run.config import KEYS, RunConfig, build_config
from lazybench.run.measuring import Measuring
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.tasks.base import Sample, Task

SAME_WEIGHTS = ("sha256", "fingerprint", "revision", "weights", "parameters", "dtype", "attention", "quantization")
# column to its tolerances, relative and absolute: another processor rounds otherwise, and a token at a tie may go
WORK, NATS, SHARE = (0.01, 0.0), (0.05, 0.001), (0.0, 0.1)
COLUMNS = {
    **dict.fromkeys(("prompt_tokens", "truncated_from", "output_tokens", "prediction"), (0.0, 0.0)),
    **dict.fromkeys(("prompt_tokens_computed", "prompt_tokens_computed_by_stage"), WORK),
    **dict.fromkeys(("prompt_tokens_computed_by_step", "tokens_of_layer_runs", "mlp_tokens_of_layer_runs"), WORK),
    **dict.fromkeys(("other_flops", "flops_ratio"), WORK),
    **dict.fromkeys(("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"), WORK),
    **dict.fromkeys(("fidelity_kl", "fidelity_first_kl"), NATS),
    **dict.fromkeys(("fidelity_top1", "fidelity_first_top1"), SHARE),
}


def remeasured(run: Run, count: int, data_root: Path | None = None, model_path: Path | None = None) -> dict[str, Check]:
    """Measure at least ``count`` records anew, all methods of samples drawn by chance, and compare them by column.

    Raises:
        UserError: model or data are not at hand or others; a method is none of this package.
    """
    with TemporaryDirectory() as scratch, offline():
        try:
            config = _config(run, Path(scratch), data_root, model_path)
            samples = _samples(run, config, data_root)
            chosen = _chosen(run, samples, count)
            loaded = load_model(config.model)
            _check_weights(run, loaded)
            for method in config.methods:
                method.prepare(loaded.model)
            with RunFolder.open(config.out, {}, {}) as folder:
                Measuring(config, loaded, folder).measure_all(chosen)
                anew = list(folder.done.values())
        except UserError:
            raise
        except Exception as error:  # whatever a foreign configuration or checkpoint makes the libraries raise
            raise naming(f"{run.path.name} can't be measured anew", error) from error
    return _compared(run, anew)


def _config(run: Run, out: Path, data_root: Path | None, model_path: Path | None) -> RunConfig:
    """The run's own, of data that names no code, with the precision that was noted and nothing timed to warm up."""
    model, noted = dict(run.config["model"]), run.provenance.get("model") or {}
    if noted.get("dtype") in DTYPES:  # "auto" is another one on another device
        model["dtype"] = noted["dtype"]
    if model_path is not None:
        model["path"] = str(model_path)
    older = {"fidelity": True, "scoring": True, "timing": True}  # what a run once did not note
    asked = {**older, **{key: run.config[key] for key in KEYS & run.config.keys()}}
    here = {"model": model, "out": str(out), "tag": None, "warmup": 0, "threads": None, "tracker": "none"}
    never = {"pruning": {}, "attention_map": False, "plugins": [], "engine": "hf"}
    return replace(build_config({**asked, **here, **never}), data=data_settings(run, data_root))


def _samples(run: Run, config: RunConfig, data_root: Path | None) -> list[tuple[Task, int, Sample]]:
    first, jobs = config.data.shard
    tasks = [measured_task(run, name, data_root) for name in config.datasets]
    for task in tasks if config.scoring else ():
        check_scorer(task)
    return [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]


def _chosen(run: Run, samples: list[tuple[Task, int, Sample]], count: int) -> list[tuple[Task, int, Sample]]:
    """Drawn anew each time: who changed records by hand cannot know which are looked at."""
    of_sample = Counter((record.task, record.sample_id) for record in run.records if record.error is None)
    chosen: list[tuple[Task, int, Sample]] = []
    for one in random.sample(samples, len(samples)):
        held = of_sample[one[0].name, one[2].sample_id]
        if held and count > 0:
            count -= held
            chosen.append(one)
    return chosen


def _check_weights(run: Run, loaded: LoadedModel) -> None:
    noted = run.provenance.get("model") or {}
    for name in SAME_WEIGHTS:
        here = loaded.provenance.get(name)
        if noted.get(name) != here:
            raise UserError(f"the model at hand is not the one measured: {name} {here} here, {noted.get(name)} there")


def _compared(run: Run, anew: list[Record]) -> dict[str, Check]:
    stored = {record.key[1:]: record for record in run.records if record.error is None}  # but for the model's name
    checks = {name: Check("measured anew") for name in COLUMNS}
    for record in anew:
        before = stored.get(record.key[1:])
        for name, tolerances in COLUMNS.items() if before else ():
            old, new = getattr(before, name), record.error or getattr(record, name)
            if before and (record.error or old not in (None, "", ())):  # else not measured then
                checks[name].expected += 1
                checks[name].compare(where(before), old, new, *tolerances)
    return {name: check for name, check in checks.items() if check.compared}
