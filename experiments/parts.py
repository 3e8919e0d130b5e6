"""The parts of a campaign: a model on some samples, one file of records each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas

from lazybench.report.curves import FLOPS, Pair, Setting, curves_of, judged
from lazybench.report.leaderboard import measured_settings
from lazybench.report.results import Results, load
from lazybench.report.statistics import divergence
from lazybench.run.record import Record

OURS = "taper"
MODELS = {  # by how the names of a model's parts begin
    "smollm2_needle": "SmolLM2-135M, 300 to 1,200 tokens",
    "smollm2": "SmolLM2-135M",
    "qwen_1_5b": "Qwen2.5-Coder-1.5B",
    "qwen_0_5b": "Qwen2.5-Coder-0.5B",
    "gemma_270m": "Gemma 3 270M",
}
Methods = dict[Pair, pandas.DataFrame]  # of each curve its samples at one ratio, the closest to the plain model first


@dataclass(frozen=True)
class Part:
    """One file of a campaign: ``smollm2_1500``."""

    name: str
    results: Results

    @property
    def title(self) -> str:
        """``SmolLM2-135M, 1,500 tokens``"""
        what = self.name.rpartition("_")[2]
        model = next(model for start, model in MODELS.items() if self.name.startswith(start))
        return f"{model}, {int(what):,} tokens" if what.isdigit() else model

    @cached_property
    def settings(self) -> pandas.DataFrame:
        """See ``measured_settings``."""
        return measured_settings(self.results)

    @cached_property
    def compared(self) -> list[Setting]:
        """The settings of the part's first model; see ``judged``."""
        (_, settings), *_ = judged(self.results.samples) or [("", [])]
        return settings

    def only(self, asks: Callable[[Record], bool] | None) -> Part:
        """With these samples alone, a needle's of all lengths as one task's; without a condition as it is."""
        if asks is None:
            return self
        records = [
            replace(record, sample_id=f"{record.sample_id} {(record.details or {}).get('length', '')}")
            for run in self.results.runs
            for record in run.records
            if asks(record)
        ]
        return Part(self.name, Results((replace(self.results.runs[0], records=records),)))

    def at(self, ratio: float, matched: str = FLOPS) -> Methods:
        """Each curve's samples at this ratio, the closest to the plain model first."""
        curves = [curve for curve in curves_of(self.compared, matched) if curve.name[0] != "oracle"]
        found = {curve.name: samples for curve in curves if len(samples := curve.at(ratio))}
        return dict(sorted(found.items(), key=lambda one: divergence(one[1]["fidelity_kl"]).value))


def read_parts(folder: Path) -> dict[str, Part]:
    """Every part of a model that is known, by name."""
    paths = [path for path in sorted(folder.glob("*.parquet")) if path.stem.startswith(tuple(MODELS))]
    return {path.stem: Part(path.stem, load([path])) for path in paths}


def fullest(parts: dict[str, Part], names: tuple[str, ...]) -> Part | None:
    """Of the parts with these names the one with the most records."""
    there = [parts[name] for name in names if name in parts]
    return max(there, key=lambda part: sum(len(run.records) for run in part.results.runs), default=None)
