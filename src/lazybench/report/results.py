"""Everything found beneath results folders, ready to be tabulated and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas

from lazybench.errors import UserError
from lazybench.report.grouping import Group, groups_of
from lazybench.report.notes import run_notes
from lazybench.report.samples import paired_samples
from lazybench.report.summary import summarise_runs
from lazybench.report.where import conditions
from lazybench.run.reading import Run, find_runs, merge_shards, read_run
from lazybench.run.record import Record


@dataclass(frozen=True)
class Results:
    """The runs, their records by run, and the attention maps."""

    runs: tuple[Run, ...]
    attention: tuple[Path, ...]  # attention.npz
    joined: tuple[str, ...] = ()  # see ``groups_of``

    @cached_property
    def _groups(self) -> tuple[list[Group], list[str]]:
        return groups_of(self.runs, self.joined)

    @property
    def groups(self) -> list[Group]:
        """Of each run; runs of one group stand in the same rows. See ``grouping``.

        Raises:
            UserError: two runs hold the same record and nothing tells them apart.
        """
        return self._groups[0]

    @cached_property
    def records(self) -> list[list[Record]]:
        """Each run's records, their model named as its group is: settings that differ are models of their own."""
        return self._renamed([group.label for group in self.groups])

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """Over all runs; see ``summarise_runs``."""
        records = self._renamed([group.model for group in self.groups])
        return summarise_runs(records, [group.setting for group in self.groups])

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """One row per sample and method; see ``paired_samples``."""
        return paired_samples(self.records)

    def _renamed(self, models: Sequence[str]) -> list[list[Record]]:
        return [
            [replace(record, model=model) for record in run.records]
            for run, model in zip(self.runs, models, strict=True)
        ]

    @cached_property
    def layers(self) -> dict[str, int]:
        """A model's name to its number of layers, where the provenance says it."""
        found = {}
        for run, records in zip(self.runs, self.records, strict=True):
            depth = (run.provenance.get("model") or {}).get("layers")
            if depth and records:
                found[records[0].model] = int(depth)
        return found

    @cached_property
    def notes(self) -> list[str]:
        """What the runs leave out, and what makes their numbers less certain, in words."""
        return [*self._groups[1], *run_notes(self.runs, self.records, bool(self.joined))]


def load(roots: Sequence[Path], where: Sequence[str] = (), joined: Sequence[str] = ()) -> Results:
    """Read every run and attention map at or below the folders.

    Args:
        where: conditions that the records must fulfil; see ``report/where.py``.
        joined: settings that may differ between runs of the same rows; see ``groups_of``.

    Raises:
        UserError: nothing there, or a run that cannot be read; no record fulfils the conditions.
    """
    chosen = conditions(where)
    for root in roots:
        if not root.is_dir():
            raise UserError(f"no results folder {root}; python run.py writes one, results/runs/... by default")
    attention = sorted({path for root in roots for path in root.rglob("attention.npz")})
    runs = merge_shards([read_run(folder) for folder in find_runs(*roots, may_lack=bool(attention))])
    if where:
        runs = [replace(run, records=[record for record in run.records if chosen(record)]) for run in runs]
        runs = [run for run in runs if run.records]
        if not runs:
            raise UserError(f"no record fulfils --where {' --where '.join(where)}")
    return Results(tuple(runs), tuple(attention), tuple(joined))
