"""What of a run folder can be computed again without measuring: records, scores, columns that follow, the summary.

Whatever the folder says is data: see ``data_at_hand``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError
from lazybench.models.chat import postprocessor
from lazybench.models.flops import LayerCost
from lazybench.report.data_at_hand import check_scorer, measured_task
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks.base import Task

if TYPE_CHECKING:
    import pandas

TOLERANCE = 1e-6  # relative; another version of a library may round the last digit otherwise
# what nobody can compute again: it was so on that machine, at that time
OF_THE_MACHINE = ("ttft_s", "generation_s", "overhead_s", "peak_memory_bytes", "added_memory_bytes")
NAMES = ("model", "task", "category", "method", "params", "commit", "sample_id", "repeat", "order", "error")
EXACT = {"fidelity_top1": 1.0, "fidelity_kl": 0.0, "fidelity_first_top1": 1.0, "fidelity_first_kl": 0.0}


@dataclass
class Check:
    """What was computed again of one kind, what does not match, and what could not be computed."""

    compared: int = 0
    expected: int = 0
    different: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)


def check_records(run: Run, data_root: Path | None = None) -> tuple[Check, Check]:
    """Look for records that were left out, and score every prediction again.

    Expected is a record of every sample of the data, method and repeat that the configuration asks for. Where the
    data is not at hand, the samples that any method has stand for it.
    """
    records, scores = Check(), Check()
    index, count = run.shards[0].split("/")
    shard = (int(index), int(count))
    for name in run.config["task"]["datasets"]:
        of_task = [record for record in run.records if record.task == name]
        try:
            task = measured_task(run, name, data_root, shard)
            samples = [sample.sample_id for sample in task.samples()]
        except UserError as error:
            samples = list(dict.fromkeys(record.sample_id for record in of_task))
            scores.not_checked.append(f"not checked: no data at hand for {name}: {error}")
            records.not_checked.append(f"not checked: whether {name} has more samples than {len(samples)}")
        else:
            try:
                check_scorer(task)
                _score_again(run, task, of_task, scores)
            except UserError as error:
                scores.not_checked.append(f"not checked: {name}: {error}")
        look_for(name, samples, of_task, run.config, records)
    return records, scores


def check_columns(run: Run) -> dict[str, Check]:
    """Compute every column again that follows from others of its record; by the column's name."""
    cost = _layer_cost(run)
    checks: dict[str, Check] = {}
    for record in run.records:
        for name, anew in () if record.error is not None else _following(record, cost):
            check, stored = checks.setdefault(name, Check()), getattr(record, name)
            check.compared += 1
            if not equal(stored, anew):
                check.different.append(f"{where(record)}: {stored} in the file, {anew} anew")
    return checks


def measured_columns(run: Run) -> dict[str, int]:
    """The columns that hold a measurement, and in how many records that did not fail."""
    blank = {field.name: field.default for field in fields(Record) if field.name not in NAMES}
    measured = [record for record in run.records if record.error is None]
    held = {
        name: sum(getattr(record, name) not in (default, None) for record in measured)
        for name, default in blank.items()
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
    flops = cost.flops(runs, mlp) + record.other_flops
    yield "flops_ratio", cost.flops([record.prompt_tokens] * cost.layers) / flops
    share = record.prompt_tokens_computed or 0.0
    came_back = by_step and by_step[0] != by_step[-1]
    read_twice = share > 1 and record.other_flops  # the model itself as the draft: its layer runs are listed nowhere
    if not came_back and not read_twice:
        yield "prompt_tokens_computed", sum(runs) / (record.prompt_tokens * cost.layers)


def _layer_cost(run: Run) -> LayerCost | None:
    noted = run.provenance.get("layer_cost")
    try:
        return LayerCost(**noted) if isinstance(noted, dict) else None
    except TypeError:
        return None


def where(record: Record) -> str:
    """A record in words."""
    named = " ".join(f"{record.task} {record.method} {record.label}".split())
    return f"{named} sample {record.sample_id} repeat {record.repeat}"


def check_summary(run: Run) -> Check:
    """Build the summary anew from the records and compare it with the folder's, cell by cell.

    Raises:
        UserError: the folder has no summary.csv.
    """
    import pandas

    from lazybench.report.summary import summarise

    path = run.folders[0] / "summary.csv"
    if not path.is_file():
        raise UserError(f"{path.parent} holds no summary.csv; run its command again to write it")
    anew = pandas.read_csv(StringIO(summarise(run.records).to_csv(index=False)))  # as CSV rounds it
    try:
        stored = pandas.read_csv(path)
    except ValueError as error:
        return Check(different=[f"summary.csv cannot be read: {' '.join(str(error).split())}"])
    if list(stored.columns) != list(anew.columns) or len(stored) != len(anew):
        shapes = f"{stored.shape} rows and columns, {anew.shape} anew; columns {list(anew.columns)}"
        return Check(different=[f"summary.csv has {shapes}"])
    different = [
        f"row {row + 1} ({_row_name(anew, row)}) {column}: {stored[column][row]} in the file, {anew[column][row]} anew"
        for row in range(len(anew))
        for column in anew.columns
        if not equal(stored[column][row], anew[column][row])
    ]
    return Check(anew.size, anew.size, different)


def look_for(name: str, samples: list[str], records: list[Record], config: dict[str, Any], check: Check) -> None:
    """Name what is missing: of every method and repeat that was asked for, a record of every sample."""
    seen: dict[tuple[str, str], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        seen[record.method, record.label][record.repeat].add(record.sample_id)
    asked = config.get("methods") or []
    if samples and len(seen) < len(asked):  # a shard may have none of a short dataset
        found = ", ".join(" ".join(key).strip() for key in seen) or "none"
        check.different.append(f"{name}: {len(asked)} methods were asked for, records are of {len(seen)}: {found}")
        check.expected += (len(asked) - len(seen)) * len(samples) * (config.get("repeats") or 1)
    for (method, params), repeats in seen.items():
        for repeat in range(max(config.get("repeats") or 1, max(repeats) + 1)):
            here = repeats.get(repeat, set())
            place = " ".join(f"{name} {method} {params}".split())
            check.expected += len(samples)
            check.compared += len(here & set(samples))
            check.different += [f"{place} repeat {repeat}: no record of sample {s}" for s in samples if s not in here]
            check.different += [f"{place} sample {s}: the data has no such sample" for s in here - set(samples)]


def _score_again(run: Run, task: Task, records: list[Record], check: Check) -> None:
    samples = {sample.sample_id: sample for sample in task.samples()}
    clean = postprocessor(run.config["model"].get("chat_format", "none"))
    if all(record.score is None for record in records):
        return  # a run without scores, or of random weights
    for record in records:
        if record.error is not None or record.sample_id not in samples:
            continue
        if record.score is None:
            check.different.append(f"{where(record)}: no score, though others of the task have one")
            continue
        anew = task.score(clean(record.prediction), samples[record.sample_id])
        check.compared += 1
        if not equal(record.score, anew):
            check.different.append(f"{where(record)}: score {record.score} in the file, {anew} anew")


def _row_name(summary: pandas.DataFrame, row: int) -> str:
    parts = [summary[name][row] for name in ("category", "task", "method", "params") if name in summary]
    return " ".join(part for part in parts if isinstance(part, str))


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
