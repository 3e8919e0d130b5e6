"""What of a run can be computed again without measuring: which records there are, their scores and FLOPs ratios.

Whatever the folder says is data: it names no code here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy

from lazybench.errors import UserError, library_errors
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.models.spec import DTYPES
from lazybench.run.config import KEYS, RunConfig, build_config
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks import build_task
from lazybench.tasks.base import Task

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
OLDER = {"fidelity": True, "scoring": True, "timing": True}  # what a run once did not note
HERE: dict[str, Any] = {"out": None, "tag": None, "warmup": 0, "threads": None, "tracker": "none", "engine": "hf"}
HERE |= {"pruning": {}, "attention_map": False, "plugins": []}


@dataclass
class Check:
    """What was computed again of one kind, what does not match, and what could not be computed."""

    how: str = "computed again"
    compared: int = 0
    expected: int = 0
    different: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def compare(self, name: str, stored: Any, anew: Any, relative: float = TOLERANCE, absolute: float = 1e-12) -> None:
        """Count a pair of values, and name one that differs; two that are missing are alike."""
        self.compared += 1
        try:
            same = numpy.shape(stored) == numpy.shape(anew) and numpy.allclose(stored, anew, relative, absolute, True)
        except (TypeError, ValueError):  # no numbers
            same = str(stored) == str(anew)
        if not same:
            self.different.append(f"{name}: {stored} in the file, {anew} anew")


def config_of(run: Run, data_root: Path | None = None, model_path: Path | None = None) -> RunConfig:
    """The run's own configuration, with the precision that it noted, nothing timed to warm up, and nothing of code.

    Args:
        data_root, model_path: where data and weights lie; None: where the run had them.

    Raises:
        UserError: it is none of this package's.
    """
    model, noted = dict(run.config["model"]), run.provenance.get("model") or {}
    if noted.get("dtype") in DTYPES:  # "auto" is another one on another device
        model["dtype"] = noted["dtype"]
    if model_path is not None:
        model["path"] = str(model_path)
    asked = {key: run.config[key] for key in KEYS & run.config.keys()}
    config = build_config({**OLDER, **asked, "model": model, **HERE})
    return replace(config, data=replace(config.data, root=data_root or config.data.root))


def measured_task(run: Run, name: str, config: RunConfig) -> Task:
    """One of the run's datasets, as much of it as the run was to measure.

    A task of lm-eval may import Python from a folder, and hand a prediction to Python (humaneval, mbpp) or to sympy's
    parser: it is not asked.

    Raises:
        UserError: it is not at hand, or not what was measured, or of lm-eval.
    """
    if name.startswith("lm_eval/"):
        raise UserError("a task of lm-eval may run code of its own, or a prediction as a program: it is not asked")
    with library_errors("no task can be made of what the folder says"):
        task = build_task(name, config.data)
        found = task.fingerprint
        task.samples()
    noted = (run.provenance.get("tasks") or {}).get(name, {}).get("fingerprint")
    if noted != found:
        raise UserError(f"the data at hand ({task.source}, {found}) is not what was measured ({noted})")
    return task


def check_records(run: Run, config: RunConfig) -> dict[str, Check]:
    """Look for ``records`` that were left out or that are not of this run, and compute every ``score`` again.

    Asked is a record of every sample of the data, method and repeat that the configuration names. Where the data is
    not at hand, the samples that any method has stand for it. Which of its methods a record is of, only measuring it
    anew would tell.
    """
    asked: dict[Any, Record] = {}
    # a draft model's file without its folder, as it is packed
    passed_on = [replace(record, params=without_folders(record.params)) for record in run.records]
    there = {record.key: record for record in passed_on}
    failed = sum(record.error is not None for record in run.records)
    records, scores = Check(f"there, {failed} of them failed" if failed else "there"), Check()
    for name in config.datasets:
        of_task = [record for record in there.values() if record.task == name]
        has_scores = any(record.score is not None for record in of_task)  # else without scoring, or of random weights
        scored = [record for record in of_task if has_scores and record.error is None]
        scores.expected += len(scored)
        try:
            task = measured_task(run, name, config)
        except UserError as error:
            samples = list(dict.fromkeys(record.sample_id for record in of_task))
            records.not_checked.append(f"not checked: whether {name} has more samples than {len(samples)}: {error}")
            scores.not_checked += [f"not checked: no data at hand for {name}"] * bool(scored)
        else:
            of_id = {sample.sample_id: sample for sample in task.samples()}
            samples = list(of_id)
            clean = postprocessor(config.model.chat_format)
            for record in scored:
                if sample := of_id.get(record.sample_id):
                    scores.compare(where(record), record.score, task.score(clean(record.prediction), sample))
        asked |= {record.key: record for record in _asked(run, config, name, samples)}
    records.expected, records.compared = len(asked), len(asked.keys() & there.keys())
    records.different = [f"{where(asked[key])}: no such record" for key in asked if key not in there]
    records.different += [
        f"{where(record)}: not asked of this run" for key, record in there.items() if key not in asked
    ]
    return {"records": records, "score": scores}


def _asked(run: Run, config: RunConfig, task: str, samples: Sequence[str]) -> list[Record]:
    """A blank record of each that the run was to measure; of repeats no more than all records and one that lacks."""
    noted = (run.provenance.get("model") or {}).get("quantization")
    model = config.model.display_name(noted, run.config.get("engine", "hf"))
    return [
        Record(model, task, "", method.name, without_folders(method.params), sample, repeat, 0)
        for sample in samples
        for method in config.methods
        for repeat in range(min(max(config.repeats, method.repeats), len(run.records) + 1))
    ]


def check_flops(run: Run) -> Check:
    """Compute every ``flops_ratio`` again from the tokens that its record counts and the cost that the run noted."""
    held = [record for record in run.records if record.error is None and record.flops_ratio is not None]
    counted, noted = [record for record in held if record.tokens_of_layer_runs], run.provenance.get("layer_cost")
    check = Check("computed again from the record", expected=len(held))
    try:
        cost = LayerCost(**cast(Any, noted))
    except TypeError:  # none, or another's
        check.not_checked = ["not checked: no cost of its layers is noted"] * bool(counted)
        return check
    for record in counted:
        anew = math.nan  # of counts that no run has
        with suppress(ArithmeticError, TypeError, ValueError):
            work = cost.flops(record.tokens_of_layer_runs, record.mlp_tokens_of_layer_runs or None) + record.other_flops
            anew = cost.flops([record.prompt_tokens] * cost.layers) / work
        check.compare(where(record), record.flops_ratio, anew)
    return check


def where(record: Record) -> str:
    """A record in words."""
    named = " ".join(f"{record.model}, {record.task} {record.method} {record.label}".split())
    return f"{named}, sample {record.sample_id} repeat {record.repeat}"
