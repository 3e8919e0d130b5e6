"""What of a run folder can be computed again without measuring: records, scores, columns that follow, the summary.

Whatever the folder says is data: see ``data_at_hand``.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any

import pandas

from lazybench.errors import UserError
from lazybench.methods import build as build_method
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.models.spec import ModelSpec
from lazybench.pruning.settings import build
from lazybench.report.data_at_hand import check_scorer, measured_task
from lazybench.report.frame import records_frame
from lazybench.report.summary import summarise
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks.base import Task

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
# what nobody can compute again: it was so on that machine, at that time
OF_THE_MACHINE = ("order", "ttft_s", "generation_s", "overhead_s", "peak_memory_bytes", "added_memory_bytes")
NAMES = ("model", "task", "category", "method", "params", "commit", "sample_id", "repeat", "error")
EXACT = {"fidelity_top1": 1.0, "fidelity_kl": 0.0, "fidelity_first_top1": 1.0, "fidelity_first_kl": 0.0}


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
    """Look for ``records`` that were left out, and compute every ``score`` again.

    Expected is a record of every sample of the data, method and repeat that the configuration asks for. Where the
    data is not at hand, the samples that any method has stand for it.
    """
    failed = sum(record.error is not None for record in run.records)
    records, scores = Check(f"there, {failed} of them failed" if failed else "there"), Check()
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
        look_for(name, samples, of_task, run.config, records)
    return {"records": records, "score": scores}


def check_names(run: Run) -> dict[str, Check]:
    """What each record says that it is, against what was asked: its model, its method with its parameters, its code.

    Which of the methods that were asked for a record is of, only measuring it anew would tell.
    """
    noted, resumed = run.provenance.get("model") or {}, run.provenance.get("resumed")
    engine = run.config.get("engine", "hf")
    commits = [run.provenance, *(resumed if isinstance(resumed, list) else ())]
    asked = [node for node in run.config.get("methods") or () if isinstance(node, dict)]

    def method(name: str, params: dict[str, Any]) -> tuple[str, str]:
        return name, json.dumps(without_folders(params), sort_keys=True)

    known: dict[str, tuple[Callable[[], set[Any]], Callable[[Record], Any]]] = {
        "model": (
            lambda: {build(ModelSpec, run.config["model"], "model").display_name(noted.get("quantization"), engine)},
            lambda record: record.model,
        ),
        "method": (
            lambda: {method(made.name, made.params) for made in map(method_of, asked)},
            lambda record: method(record.method, record.params),
        ),
        "commit": (
            lambda: {None, *(str(facts.get("commit")) for facts in commits if isinstance(facts, dict))},
            lambda record: record.commit,
        ),
    }
    checks = {}
    for name, (allowed, of) in known.items():
        checks[name] = check = Check("as the run's configuration and provenance say", expected=len(run.records))
        try:
            if not (values := allowed()):
                raise UserError(f"the configuration names no {name}")
        except UserError as error:
            check.not_checked.append(f"not checked: {error}")
            continue
        check.compared = len(run.records)
        others = [record for record in run.records if of(record) not in values]
        check.different += [f"{where(record)}: {name} {of(record)}, which is not of this run" for record in others]
    return checks


def method_of(node: dict[str, Any]) -> Any:
    """A registered method with its parameters as plain data; nothing is imported for it.

    Raises:
        UserError: no such method or parameter, or a value that is not allowed.
    """
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
    if by_step := record.prompt_tokens_computed_by_step:
        yield "prompt_tokens_computed_by_stage", by_step[-1]
    if cost is None or not record.tokens_of_layer_runs:
        return
    runs, mlp = record.tokens_of_layer_runs, record.mlp_tokens_of_layer_runs or None
    tokens = record.prompt_tokens
    try:
        plain, computed = cost.flops([tokens] * cost.layers), sum(runs) / (tokens * cost.layers)
        yield "flops_ratio", plain / (cost.flops(runs, mlp) + record.other_flops)
    except (ArithmeticError, TypeError, ValueError):  # counts that no run has: no tokens, other layers
        yield "flops_ratio", math.nan
        return
    came_back = by_step and by_step[0] != by_step[-1]
    # the model itself as the draft: its layer runs are listed nowhere
    read_twice = (record.prompt_tokens_computed or 0.0) > 1 and record.other_flops
    if not came_back and not read_twice:
        yield "prompt_tokens_computed", computed


def where(record: Record) -> str:
    """A record in words."""
    named = " ".join(f"{record.task} {record.method} {record.label}".split())
    return f"{named} sample {record.sample_id} repeat {record.repeat}"


def check_summary(run: Run) -> dict[str, Check]:
    """Build the summary anew from the records and compare it with the folder's, cell by cell; a campaign has none.

    Raises:
        UserError: the folder has no summary.csv.
    """
    path = run.path / "summary.csv"
    if not run.path.is_dir() or not run.records:  # that none is there, the records' own check says
        return {}
    if not path.is_file():
        raise UserError(f"{path.parent} holds no summary.csv; run its command again to write it")
    anew = pandas.read_csv(StringIO(summarise(records_frame([run.records])).to_csv(index=False)))  # as CSV rounds it
    check = Check("cells computed again from samples.jsonl", expected=anew.size)
    try:
        stored = pandas.read_csv(path)
        if list(stored) != list(anew) or len(stored) != len(anew):
            raise ValueError(f"it has {stored.shape} rows and columns, {anew.shape} anew; columns {list(anew)}")
    except ValueError as error:
        check.different.append(f"it cannot be compared: {' '.join(str(error).split())}")
        return {"summary.csv": check}
    for row, (old, new) in enumerate(zip(stored.to_dict("records"), anew.to_dict("records"), strict=True), 1):
        named = " ".join(str(new[name]) for name in ("category", "task", "method", "params"))
        for column in anew:
            check.compare(f"row {row} ({named}) {column}", old[column], new[column])
    return {"summary.csv": check}


def look_for(name: str, samples: list[str], records: list[Record], config: dict[str, Any], check: Check) -> None:
    """Name what is missing: of every method and repeat that was asked for, a record of every sample."""
    seen: dict[tuple[str, str], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        seen[record.method, record.setting][record.repeat].add(record.sample_id)
    words = {(record.method, record.setting): f"{record.method} {record.label}".strip() for record in records}
    asked, least = config.get("methods") or [], config.get("repeats") or 1
    if samples and len(seen) < len(asked):  # a shard may have none of a short dataset
        found = ", ".join(words.values()) or "none"
        check.different.append(f"{name}: {len(asked)} methods were asked for, records are of {len(seen)}: {found}")
        check.expected += (len(asked) - len(seen)) * len(samples) * least
    for key, repeats in seen.items():
        place = f"{name} {words[key]}"
        if len(repeats) < least:
            check.expected += (least - len(repeats)) * len(samples)
            check.different.append(f"{place}: {least} repeats were asked for, records are of {len(repeats)}")
        for repeat in {*range(len(repeats)), *repeats}:
            here = repeats.get(repeat, set())
            check.expected += len(samples)
            check.compared += len(here & set(samples))
            check.different += [f"{place} repeat {repeat}: no record of sample {s}" for s in samples if s not in here]
            check.different += [f"{place} sample {s}: the data has no such sample" for s in here - set(samples)]


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
