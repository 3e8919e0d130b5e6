"""What of a run folder can be computed again without measuring: records, scores, columns that follow from others.

Whatever the folder says is data: see ``data_at_hand``.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lazybench.errors import UserError
from lazybench.methods import Method
from lazybench.methods import build as build_method
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.models.spec import ModelSpec
from lazybench.pruning.settings import build
from lazybench.report.data_at_hand import check_scorer, measured_task
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks.base import Task

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
# what nobody can compute again: it was so on that machine, at that time
OF_THE_MACHINE = ("order", "ttft_s", "generation_s", "overhead_s", "peak_memory_bytes", "added_memory_bytes")
NAMES = ("model", "task", "category", "method", "params", "commit", "sample_id", "repeat", "error")
EXACT = {"fidelity_top1": 1.0, "fidelity_kl": 0.0, "fidelity_first_top1": 1.0, "fidelity_first_kl": 0.0}
Key = tuple[str, str]  # a method, and its parameters as a text


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


def check_records(run: Run, data_root: Path | None = None) -> dict[str, Check]:
    """Look for ``records`` that were left out or that are not of this run, and compute every ``score`` again.

    Expected is a record of every sample of the data, method and repeat that the configuration asks for. Where the
    data is not at hand, the samples that any method has stand for it.
    """
    failed = sum(record.error is not None for record in run.records)
    records, scores = Check(f"there, {failed} of them failed" if failed else "there"), Check()
    try:
        asked = {_key(made.name, made.params): made for made in map(method_of, run.config.get("methods") or ())}
        if not asked:
            raise UserError("the configuration names no method")
        noted = (run.provenance.get("model") or {}).get("quantization")
        model = build(ModelSpec, run.config["model"], "model").display_name(noted, run.config.get("engine", "hf"))
        _look_for_others(run, model, asked, records)
    except UserError as error:
        asked = {}
        records.not_checked.append(f"not checked: of what they are: {error}")
    for name in run.config["task"]["datasets"]:
        of_task = [record for record in run.records if record.task == name]
        if any(record.score is not None for record in of_task):  # else a run without scores, or of random weights
            scores.expected += sum(record.error is None for record in of_task)
        samples = list(dict.fromkeys(record.sample_id for record in of_task))
        try:
            task = measured_task(run, name, data_root)
            samples = [sample.sample_id for sample in task.samples()]
        except UserError as error:
            scores.not_checked.append(f"not checked: no data at hand for {name}: {error}")
            records.not_checked.append(f"not checked: whether {name} has more samples than {len(samples)}")
        else:
            records.different += [
                f"{where(record)}: category {record.category}, the task's is {task.category}"
                for record in of_task
                if record.category != task.category
            ]
            try:
                check_scorer(task)
                _score_again(run, task, of_task, scores)
            except UserError as error:
                scores.not_checked.append(f"not checked: {name}: {error}")
        _look_for_lacking(name, samples, of_task, asked, run.config.get("repeats") or 1, records)
    return {"records": records, "score": scores}


def _look_for_others(run: Run, model: str, asked: dict[Key, Method], check: Check) -> None:
    """Name the records of another model, method or code than the configuration and the provenance say.

    Which of the methods that were asked for a record is of, only measuring it anew would tell.
    """
    resumed = run.provenance.get("resumed")
    facts = [run.provenance, *(resumed if isinstance(resumed, list) else ())]
    commits = {None, *(str(one.get("commit")) for one in facts if isinstance(one, dict))}
    for record in run.records:
        for what, is_so in (
            (f"model {record.model}", record.model == model),
            (f"method {record.method} {record.label}", _key(record.method, record.params) in asked),
            (f"commit {record.commit}", record.commit in commits),
        ):
            if not is_so:
                check.different.append(f"{where(record)}: {what.strip()}, which is not of this run")


def _look_for_lacking(
    name: str, samples: list[str], records: list[Record], asked: dict[Key, Method], repeats: int, check: Check
) -> None:
    """Name what is missing: of every method and repeat that was asked for, a record of every sample."""
    seen: dict[Key, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        seen[_key(record.method, record.params)][record.repeat].add(record.sample_id)
    for key in asked or seen:
        method = f"{key[0]} {asked[key].label}".strip() if key in asked else key[0]
        most = max(repeats, asked[key].repeats if key in asked else 1)
        check.expected += most * len(samples)
        there = sum(len(found & set(samples)) for repeat, found in seen[key].items() if repeat < most)
        check.compared += there
        for repeat in [place for place in range(min(most, len(seen[key]) + 1)) if there < most * len(samples)]:
            lacking = [sample for sample in samples if sample not in seen[key][repeat]]
            check.different += [f"{name} {method} repeat {repeat}: no record of sample {one}" for one in lacking]
        for repeat, found in seen[key].items():
            others = found if repeat >= most else found - set(samples)
            check.different += [f"{name} {method} repeat {repeat} sample {one}: none such was asked" for one in others]


def _key(method: str, params: dict[str, Any]) -> Key:
    return method, json.dumps(without_folders(params), sort_keys=True)


def method_of(entry: Any) -> Method:
    """A registered method with its parameters as plain data, or by its name; nothing is imported for it.

    Raises:
        UserError: no such method or parameter, or a value that is not allowed.
    """
    node = entry if isinstance(entry, dict) else {"method": entry}
    return build_method(str(node.get("method")), {name: value for name, value in node.items() if name != "method"})


def check_columns(run: Run) -> dict[str, Check]:
    """Compute every column again that follows from others of its record; by the column's name."""
    noted, cost = run.provenance.get("layer_cost"), None
    with suppress(TypeError):  # not what a run notes: what follows from it isn't checked, and is named
        cost = LayerCost(**noted) if isinstance(noted, dict) else None
    held, checks = measured_columns(run), dict[str, Check]()
    for record in run.records:
        for name, anew in () if record.error is not None else _following(record, cost):
            check = checks.setdefault(name, Check("computed again from the record", expected=held.get(name, 0)))
            check.compare(where(record), getattr(record, name), anew)
    return checks


def measured_columns(run: Run) -> dict[str, int]:
    """The columns that hold a measurement, and in how many records that did not fail."""
    measured = [record for record in run.records if record.error is None]
    held = {
        one.name: sum(getattr(record, one.name) not in (one.default, None) for record in measured)
        for one in fields(Record)
        if one.name not in NAMES
    }
    return {name: count for name, count in held.items() if count}


def _following(record: Record, cost: LayerCost | None) -> Iterator[tuple[str, Any]]:
    """Columns that follow from others of the record, and what they are."""
    if record.ttft_s is not None and record.generation_s is not None and record.decode_step_s is not None:
        yield "decode_step_s", (record.generation_s - record.ttft_s) / max(1, record.output_tokens - 1)
    if record.method == "baseline" and record.fidelity_top1 is not None:
        yield from EXACT.items()
    if cost is None or not record.tokens_of_layer_runs:
        return
    runs, mlp = record.tokens_of_layer_runs, record.mlp_tokens_of_layer_runs or None
    try:
        plain = cost.flops([record.prompt_tokens] * cost.layers)
        yield "flops_ratio", plain / (cost.flops(runs, mlp) + record.other_flops)
    except (ArithmeticError, TypeError, ValueError):  # counts that no run has: no tokens, other layers
        yield "flops_ratio", math.nan


def where(record: Record) -> str:
    """A record in words."""
    named = " ".join(f"{record.task} {record.method} {record.label}".split())
    return f"{named} sample {record.sample_id} repeat {record.repeat}"


def _score_again(run: Run, task: Task, records: list[Record], check: Check) -> None:
    samples = {sample.sample_id: sample for sample in task.samples()}
    clean = postprocessor(run.config["model"].get("chat_format", "none"))
    if all(record.score is None for record in records):
        return
    for record in records:
        if record.error is not None or record.sample_id not in samples:
            continue
        if record.score is None:
            check.different.append(f"{where(record)}: no score, though others of the task have one")
        else:
            check.compare(where(record), record.score, task.score(clean(record.prediction), samples[record.sample_id]))


def equal(one: Any, other: Any, relative: float = TOLERANCE, absolute: float = 1e-12) -> bool:
    """Numbers that are close enough, the same texts, two that are missing; of lists each."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(lambda a, b: equal(a, b, relative, absolute), one, other))
    try:
        first, second = float(one), float(other)
    except (TypeError, ValueError):
        return str(one) == str(other)
    both_missing = math.isnan(first) and math.isnan(second)
    return both_missing or math.isclose(first, second, rel_tol=relative, abs_tol=absolute)
