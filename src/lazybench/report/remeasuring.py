"""``verify --remeasure N``: records of a run measured anew, from its configuration taken as data.

Model, methods and settings are built as a run's own are, from known fields alone. Weights, precision and data
must be those that the run noted; the hub is not asked, and no code of a checkpoint is run.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from lazybench.errors import UserError, library_errors
from lazybench.models import LoadedModel, load_model
from lazybench.report.verify import Check, measured_task, where
from lazybench.run.config import RunConfig
from lazybench.run.measuring import Measuring
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.run.tracking import Tracker
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


def remeasured(run: Run, config: RunConfig, count: int) -> dict[str, Check]:
    """Measure at least ``count`` records anew, all methods of samples drawn by chance, and compare them by column.

    Raises:
        UserError: model or data are not at hand or others.
    """
    failing = library_errors(f"{run.path.name} can't be measured anew")  # a foreign configuration or checkpoint
    # the hub's cache is read, the hub is not asked
    with TemporaryDirectory() as scratch, patch("huggingface_hub.constants.HF_HUB_OFFLINE", True), failing:
        config = replace(config, out=Path(scratch) / "anew")
        chosen = _chosen(run, config, count)
        loaded = load_model(config.model)
        _check_weights(run, loaded)
        for method in config.methods:
            method.prepare(loaded.model)
        with RunFolder.open(config.out, {}, {}) as folder:
            Measuring(config, loaded, folder, Tracker()).measure_all(chosen)
            return _compared(run, list(folder.done.values()))


def _chosen(run: Run, config: RunConfig, count: int) -> list[tuple[Task, int, Sample]]:
    """Drawn anew each time: who changed records by hand cannot know which are looked at."""
    first, jobs = config.data.shard
    tasks = [measured_task(run, name, config) for name in config.datasets]
    samples = [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]
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
    checks = {name: Check("measured anew", expected=len(stored)) for name in COLUMNS}
    for record in anew:
        before = stored.get(record.key[1:])
        for name, check in checks.items() if before else ():
            old, new = getattr(before, name), record.error or getattr(record, name)
            if before and (record.error or old not in (None, "", ())):  # else not measured then
                check.compare(where(before), old, new, *COLUMNS[name])
    return {name: check for name, check in checks.items() if check.compared}
