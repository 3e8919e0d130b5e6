"""What of a run can be computed again without measuring: which records there are, scores, FLOPs ratios.

Whatever the folder says is data: see ``data_at_hand``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy

from lazybench.errors import UserError
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.report.data_at_hand import check_scorer, measured_task
from lazybench.run.config import RunConfig
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks.base import Task

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
# what nobody can compute again: it was so on that machine, at that time
OF_THE_MACHINE = {"order", "ttft_s", "generation_s", "decode_step_s", "overhead_s"}
OF_THE_MACHINE |= {"peak_memory_bytes", "added_memory_bytes"}
NAMES = {"model", "task", "category", "method", "params", "commit", "sample_id", "repeat", "error"}


@dataclass
class Check:
    """What was computed again of one kind, what does not match, and what could not be computed."""

    how: str = "computed again"
    compared: int = 0
    expected: int = 0
    different: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def compare(self, name: str, stored: Any, anew: Any, relative: float = TOLERANCE, absolute: float = 1e-12) -> None:
        """Count a pair of values, and name one that differs."""
        self.compared += 1
        if not equal(stored, anew, relative, absolute):
            self.different.append(f"{name}: {stored} in the file, {anew} anew")


def check_records(run: Run, config: RunConfig) -> dict[str, Check]:
    """Look for ``records`` that were left out or that are not of this run, and compute every ``score`` again.

    Asked is a record of every sample of the data, method and repeat that the configuration names. Where the data is
    not at hand, the samples that any method has stand for it. Which of its methods a record is of, only measuring it
    anew would tell.
    """
    asked: dict[Any, Record] = {}
    there = {record.key: record for record in map(_passed_on, run.records)}
    failed = sum(record.error is not None for record in run.records)
    records, scores = Check(f"there, {failed} of them failed" if failed else "there"), Check()
    for name in config.datasets:
        of_task = [record for record in there.values() if record.task == name]
        # else a run without scores, or of random weights
        scored = any(record.score is not None for record in of_task)
        scores.expected += scored * sum(record.error is None for record in of_task)
        try:
            task = measured_task(run, name, config)
        except UserError as error:
            samples = list(dict.fromkeys((record.sample_id, record.category) for record in of_task))
            records.not_checked.append(f"not checked: whether {name} has more samples than {len(samples)}: {error}")
            if scored:
                scores.not_checked.append(f"not checked: no data at hand for {name}")
        else:
            samples = [(sample.sample_id, task.category) for sample in task.samples()]
            if scored:
                _score_again(task, of_task, postprocessor(config.model.chat_format), scores)
        asked |= {record.key: record for record in map(_passed_on, _asked(run, config, name, samples))}
    resumed = run.provenance.get("resumed")
    facts = [run.provenance, *(resumed if isinstance(resumed, list) else ())]
    commits = {None, *(str(one.get("commit")) for one in facts if isinstance(one, dict))}
    records.expected, records.compared = len(asked), len(asked.keys() & there.keys())
    records.different = [f"{where(record)}: no such record" for key, record in asked.items() if key not in there]
    for key, record in there.items():
        if key not in asked:
            records.different.append(f"{where(record)}: not asked of this run")
        elif record.category != asked[key].category:
            records.different.append(f"{where(record)}: category {record.category}, not the task's")
        if record.commit not in commits:
            records.different.append(f"{where(record)}: commit {record.commit}, which is not of this run")
    return {"records": records, "score": scores}


def _asked(run: Run, config: RunConfig, task: str, samples: Iterable[tuple[str, str]]) -> Iterator[Record]:
    """A blank record of each that the run was to measure; of repeats no more than all records and one that lacks."""
    noted = (run.provenance.get("model") or {}).get("quantization")
    model = config.model.display_name(noted, run.config.get("engine", "hf"))
    for sample, category in samples:
        for method in config.methods:
            for repeat in range(min(max(config.repeats, method.repeats), len(run.records) + 1)):
                yield Record(model, task, category, method.name, method.params, sample, repeat, 0)


def _passed_on(record: Record) -> Record:
    """As it is packed: a draft model's file without its folder."""
    return replace(record, params=without_folders(record.params))


def _score_again(task: Task, records: list[Record], clean: Any, check: Check) -> None:
    try:
        check_scorer(task)
    except UserError as error:
        check.not_checked.append(f"not checked: {task.name}: {error}")
        return
    samples = {sample.sample_id: sample for sample in task.samples()}
    for record in records:
        if record.error is None and (sample := samples.get(record.sample_id)):
            check.compare(where(record), record.score, task.score(clean(record.prediction), sample))


def check_flops(run: Run) -> Check:
    """Compute every ``flops_ratio`` again from the tokens of its layer runs and the model's noted cost."""
    noted, cost = run.provenance.get("layer_cost"), None
    with suppress(TypeError):  # not what a run notes: what follows from it isn't checked, and is named
        cost = LayerCost(**noted) if isinstance(noted, dict) else None
    check = Check("computed again from the record", expected=measured_columns(run).get("flops_ratio", 0))
    for record in run.records if cost else ():
        if cost is None or record.error is not None or not (runs := record.tokens_of_layer_runs):
            continue
        try:
            plain = cost.flops([record.prompt_tokens] * cost.layers)
            ratio = plain / (cost.flops(runs, record.mlp_tokens_of_layer_runs or None) + record.other_flops)
        except (ArithmeticError, TypeError, ValueError):  # counts that no run has: no tokens, other layers
            ratio = math.nan
        check.compare(where(record), record.flops_ratio, ratio)
    return check


def measured_columns(run: Run) -> dict[str, int]:
    """The columns that hold a measurement, and in how many records that did not fail."""
    measured = [record for record in run.records if record.error is None]
    held = {
        one.name: sum(getattr(record, one.name) not in (one.default, None) for record in measured)
        for one in fields(Record)
        if one.name not in NAMES
    }
    return {name: count for name, count in held.items() if count}


def where(record: Record) -> str:
    """A record in words."""
    named = " ".join(f"{record.model}, {record.task} {record.method} {record.label}".split())
    return f"{named}, sample {record.sample_id} repeat {record.repeat}"


def equal(one: Any, other: Any, relative: float = TOLERANCE, absolute: float = 1e-12) -> bool:
    """Numbers that are close enough, the same texts, two that are missing; of lists each."""
    try:
        alike = numpy.shape(one) == numpy.shape(other)
        return alike and bool(numpy.allclose(one, other, relative, absolute, equal_nan=True))
    except (TypeError, ValueError):  # no numbers
        return str(one) == str(other)
