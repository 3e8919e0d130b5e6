"""Everything found beneath results folders, ready to be tabulated and drawn; and the options that name it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas

from lazybench.pruning.settings import path_of
from lazybench.report.rows import settings
from lazybench.report.summary import by_sample, records_frame, summarise
from lazybench.report.tables import run_notes, run_table
from lazybench.run.files import write_atomically
from lazybench.run.reading import Run, find_runs, read_runs


@dataclass(frozen=True)
class Results:
    """The runs, the oldest first, and the attention maps."""

    runs: tuple[Run, ...]
    attention: tuple[Path, ...] = ()  # attention.npz

    @cached_property
    def records(self) -> pandas.DataFrame:
        """See ``records_frame``."""
        return records_frame(self.runs, settings(self.runs))

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """One row per sample and method; see ``by_sample``."""
        return by_sample(self.records)

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """See ``summarise``."""
        return summarise(self.records, self.samples)

    @cached_property
    def layers(self) -> dict[str, int]:
        """A model's name in the tables to its number of layers, where the provenance says it."""
        depths = [(run.provenance.get("model") or {}).get("layers") for run in self.runs]
        names = self.records[["model", "run"]].drop_duplicates()
        return {str(name): int(depths[run]) for name, run in names.itertuples(index=False) if depths[run]}

    @cached_property
    def notes(self) -> list[str]:
        """What the runs leave out, and what makes their numbers less certain, in words."""
        return run_notes(self.runs, self.records)

    def write_summary(self, out: Path) -> None:
        """summary.csv and table.md."""
        write_atomically(out / "summary.csv", self.summary.to_csv(index=False).encode())
        write_atomically(out / "table.md", run_table(self.summary, self.notes).encode())


def load(roots: Sequence[Path]) -> Results:
    """Read every run, campaign and attention map at or below the folders.

    Raises:
        UserError: nothing there, or a run that cannot be read.
    """
    attention = sorted({path for root in roots for path in root.rglob("attention.npz")})
    paths = find_runs(*roots, may_lack=bool(attention))
    runs = sorted((run for path in paths for run in read_runs(path)), key=lambda run: run.started)
    return Results(tuple(runs), tuple(attention))


def read_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, name: str
) -> tuple[argparse.Namespace, Results]:
    """What the report and the leaderboard both take; gives the options, and the results that they name.

    Raises:
        UserError: nothing there, or a run that cannot be read.
    """
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="runs or campaigns, at any depth")
    out = Path("results") / name
    parser.add_argument("--out", type=path_of, default=out, help=f"where to write; default: {out}")
    options = parser.parse_args(arguments)
    return options, load(options.folders)
