"""Everything found beneath results folders, ready to be tabulated and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas

from lazybench.errors import UserError
from lazybench.report.samples import baseline_drift, paired_samples
from lazybench.report.summary import summarise_runs
from lazybench.store.reading import Run, merge_shards, read_run
from lazybench.store.record import Record


@dataclass(frozen=True)
class Results:
    """The runs, their records by run, and the attention maps."""

    runs: tuple[Run, ...]
    attention: tuple[Path, ...]  # attention.npz or attention.json

    @cached_property
    def records(self) -> list[list[Record]]:
        """Each run's records. A model measured under several settings (hardware, dtype, seed, ...) stands once for
        each, with a number behind its name: numbers of different settings are never averaged.
        """
        settings: dict[str, list[str]] = {}
        keys = []
        for run in self.runs:
            key = json.dumps(
                [
                    {k: v for k, v in run.config.items() if k in ("model", "seed", "max_new_tokens", "threads")},
                    run.provenance.get("hardware"),
                ],
                sort_keys=True,
                default=str,
            )
            known = settings.setdefault(run.model, [])
            if key not in known:
                known.append(key)
            keys.append((run.model, key))
        renamed = []
        for run, (name, key) in zip(self.runs, keys, strict=True):
            label = name if len(settings[name]) == 1 else f"{name} #{settings[name].index(key) + 1}"
            renamed.append([replace(record, model=label) for record in run.records])
        return renamed

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """Over all runs; see ``summarise_runs``."""
        return summarise_runs(self.records)

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """One row per sample and method; see ``paired_samples``."""
        return paired_samples(self.records)

    @cached_property
    def layers(self) -> dict[str, int]:
        """A model's name to its number of layers, where the provenance says it."""
        found = {}
        for run, records in zip(self.runs, self.records, strict=True):
            depth = (run.provenance.get("model") or {}).get("layers")
            if depth and records:
                found[records[0].model] = int(depth)
        return found

    @property
    def models(self) -> list[str]:
        """In the order of the summary."""
        return list(dict.fromkeys(self.summary["model"])) if len(self.summary) else []

    @cached_property
    def drifts(self) -> dict[str, float | None]:
        """A run's folder name to its baseline's drift."""
        return {run.folders[0].name: baseline_drift(run.records) for run in self.runs}


def load(roots: Sequence[Path]) -> Results:
    """Read every run and attention map at or below the folders.

    Raises:
        UserError: nothing there, or a run that cannot be read.
    """
    for root in roots:
        if not root.is_dir():
            raise UserError(f"no results folder {root}; python run.py writes one, results/runs/... by default")
    folders = sorted({path.parent for root in roots for path in root.rglob("samples.jsonl")})
    attention = sorted(
        {path for root in roots for path in root.rglob("attention.*") if path.suffix in (".npz", ".json")}
    )
    if not folders and not attention:
        raise UserError(f"no run in {', '.join(map(str, roots))}: no folder at or below holds a samples.jsonl")
    return Results(tuple(merge_shards([read_run(folder) for folder in folders])), tuple(attention))
