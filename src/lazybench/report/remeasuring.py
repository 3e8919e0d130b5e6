"""``verify --remeasure N``: records of a run folder measured anew, from its configuration taken as data.

Model, methods and settings are built through their own dataclasses from known fields alone. Weights, precision and data
must be those that the run noted; the hub is not asked, and no code of a checkpoint is run.
"""

from __future__ import annotations

import random
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast, get_args, get_type_hints

from lazybench.errors import UserError, naming
from lazybench.methods import Method, build
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.spec import DTYPES
from lazybench.report.checks import Check, where
from lazybench.report.data_at_hand import check_scorer, data_settings, measured_task, offline
from lazybench.run.config import RunConfig
from lazybench.run.measuring import Measuring
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.run.tracking import Tracker
from lazybench.tasks.base import Sample, Task

T = TypeVar("T")
SAME_WEIGHTS = ("sha256", "fingerprint", "revision", "weights", "parameters", "dtype", "attention", "quantization")
# column to its tolerances, relative and absolute: another processor rounds otherwise, and a token at a tie may go
WORK, NATS, SHARE = (0.01, 0.0), (0.05, 0.001), (0.0, 0.1)
COLUMNS: dict[str, tuple[float, float]] = {
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
                Measuring(config, loaded, folder, Tracker()).measure_all(chosen)
                anew = list(folder.done.values())
        except UserError:
            raise
        except Exception as error:  # whatever a foreign configuration or checkpoint makes the libraries raise
            raise naming(f"{run.path.name} can't be measured anew", error) from error
    return _compared(run, anew)


def rebuilt(kind: type[T], node: Mapping[str, Any]) -> T:
    """A dataclass of this package from data: its known fields; a part that is a dataclass itself by the field's type.

    Raises:
        UserError: a value that it refuses.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(cast(Any, kind)) if field.init and field.name in node]
    try:
        return kind(**{name: _part(hints[name], node[name]) for name in known})
    except (TypeError, ValueError) as error:
        raise naming(kind.__name__, error) from error


def rebuilt_method(node: Mapping[str, Any]) -> Method:
    """A registered method with its parameters as plain data; nothing is imported for it.

    Raises:
        UserError: no such method or parameter, or a value that is not allowed.
    """
    return build(str(node.get("method")), {name: value for name, value in node.items() if name != "method"})


def _part(hint: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    parts = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next((part for part in parts if is_dataclass(part)), None)
    return dict(value) if kind is None else rebuilt(cast(type, kind), value)


def _config(run: Run, out: Path, data_root: Path | None, model_path: Path | None) -> RunConfig:
    given, noted = run.config, run.provenance.get("model") or {}
    model = rebuilt(ModelSpec, given["model"])
    if noted.get("dtype") in DTYPES:  # "auto" is another one on another device
        model = replace(model, dtype=noted["dtype"])
    if model_path is not None:
        model = replace(model, path=model_path)
    return RunConfig(
        model=model,
        task_name=str(given["task"].get("name")),
        datasets=tuple(given["task"]["datasets"]),
        data=data_settings(run, data_root),
        methods=tuple(rebuilt_method(node) for node in given.get("methods") or ()),
        repeats=given.get("repeats", 1),
        warmup=0,
        max_new_tokens=given.get("max_new_tokens"),
        seed=given.get("seed") or 0,
        fidelity=given.get("fidelity", True),
        scoring=given.get("scoring", True),
        threads=None,
        tracker="none",
        out=out,
        resolved={},
        timing=given.get("timing", True),
    )


def _samples(run: Run, config: RunConfig, data_root: Path | None) -> list[tuple[Task, int, Sample]]:
    first, jobs = config.data.shard
    tasks = [measured_task(run, name, data_root) for name in config.datasets]
    for task in tasks if config.scoring else ():
        check_scorer(task)
    return [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]


def _chosen(run: Run, samples: list[tuple[Task, int, Sample]], count: int) -> list[tuple[Task, int, Sample]]:
    """Drawn anew each time: who changed records by hand cannot know which are looked at."""
    of_sample: dict[tuple[str, str], int] = {}
    for record in run.records:
        key = (record.task, record.sample_id)
        of_sample[key] = of_sample.get(key, 0) + (record.error is None)
    chosen: list[tuple[Task, int, Sample]] = []
    for one in random.sample(samples, len(samples)):
        held = of_sample.get((one[0].name, one[2].sample_id), 0)
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
        if before is None:
            continue
        for name, tolerances in COLUMNS.items():
            if record.error is None and getattr(before, name) in (None, "", ()):
                continue  # not measured then
            checks[name].expected += 1
            checks[name].compare(
                where(before), getattr(before, name), record.error or getattr(record, name), *tolerances
            )
    return {name: check for name, check in checks.items() if check.compared}
