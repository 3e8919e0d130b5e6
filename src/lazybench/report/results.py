"""Everything found beneath results folders, ready to be tabulated and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import pandas

from lazybench.errors import UserError, shown
from lazybench.report.rows import settings
from lazybench.report.summary import by_sample, records_frame, summarise
from lazybench.report.tables import run_notes, run_table
from lazybench.run.files import write_atomically
from lazybench.run.reading import Run, find_runs, read_runs
from lazybench.run.record import Record

ASKED = [field.name for field in fields(Record) if "tuple" not in str(field.type) and field.name != "details"]
WHERE = "only these records, as in \"task == 'qasper' and prompt_tokens > 1000\"; the baseline of each stays"


@dataclass(frozen=True)
class Results:
    """The runs, the oldest first, and the attention maps."""

    runs: tuple[Run, ...]
    attention: tuple[Path, ...] = ()  # attention.npz

    @cached_property
    def settings(self) -> list[dict[str, str]]:
        """For each run and category what tells its rows from others."""
        return settings(self.runs)

    @cached_property
    def records(self) -> pandas.DataFrame:
        """See ``records_frame``."""
        seeds = [run.config.get("seed") or 0 for run in self.runs]
        return records_frame([run.records for run in self.runs], self.settings, seeds)

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """One row per sample and method; see ``by_sample``."""
        return by_sample(self.records)

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """See ``summarise``."""
        return summarise(self.records, self.samples)

    @cached_property
    def labelled(self) -> list[tuple[str, Record]]:
        """Every record with its model's name and what tells its rows from others."""
        return [
            (f"{record.model} {told[record.category]}".strip(), record)
            for run, told in zip(self.runs, self.settings, strict=True)
            for record in run.records
        ]

    @cached_property
    def layers(self) -> dict[str, int]:
        """The same names to the model's number of layers, where the provenance says it."""
        depths = [(run.provenance.get("model") or {}).get("layers") for run in self.runs for _ in run.records]
        return {name: int(depth) for (name, _), depth in zip(self.labelled, depths, strict=True) if depth}

    @cached_property
    def notes(self) -> list[str]:
        """What the runs leave out, and what makes their numbers less certain, in words."""
        return run_notes(self.runs, self.records)

    def write_summary(self, out: Path) -> None:
        """summary.csv and table.md."""
        write_atomically(out / "summary.csv", self.summary.to_csv(index=False).encode())
        write_atomically(out / "table.md", run_table(self.summary, self.notes).encode())


def load(roots: Sequence[Path], where: Sequence[str] = ()) -> Results:
    """Read every run, campaign and attention map at or below the folders.

    Args:
        where: conditions that the records must fulfil, see ``chosen``; typed by a person, never read from a file.

    Raises:
        UserError: nothing there, or a run that cannot be read; a condition that no record fulfils or that can't be
            asked.
    """
    for root in roots:
        if not root.exists():
            raise UserError(f"no results folder {root}; python run.py writes one, results/runs/... by default")
    attention = sorted({path for root in roots for path in root.rglob("attention.npz")})
    paths = find_runs(*roots, may_lack=bool(attention))
    runs = sorted((run for path in paths for run in read_runs(path)), key=lambda run: run.started)
    if where:
        runs = [replace(run, records=kept) for run in runs if (kept := chosen(run.records, where))]
        if not runs:
            raise UserError(f"no record fulfils --where {' --where '.join(where)}")
    return Results(tuple(runs), tuple(attention))


def chosen(records: Sequence[Record], where: Sequence[str]) -> list[Record]:
    """The records of a run that fulfil every condition, and the baseline of their samples: ratios refer to it.

    Args:
        where: conditions on a record's fields; see ``DataFrame.query``.

    Raises:
        UserError: a condition that can't be read or asked, or an unknown field.
    """
    rows = [[getattr(record, name) for name in ASKED] for record in records]
    table = pandas.DataFrame(rows, columns=ASKED, dtype=object).infer_objects()
    table["params"] = [record.setting for record in records]
    for text in where:
        try:
            table = table.query(text, engine="python")
        except Exception as error:  # whatever pandas and Python raise of a text that a person typed
            known = f"a condition on {', '.join(ASKED)}, as in \"task == 'qasper'\""
            raise UserError(f"--where {text} is not {known}: {shown(error)}") from error
    kept = set(table.index)
    samples = {(records[place].task, records[place].sample_id) for place in kept}
    return [
        record
        for place, record in enumerate(records)
        if place in kept or (record.method == "baseline" and (record.task, record.sample_id) in samples)
    ]
