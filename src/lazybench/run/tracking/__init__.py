"""Where a run can be watched from outside; results/ is complete without any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lazybench.errors import unknown_name
from lazybench.run.record import Record


class Tracker(Protocol):
    """What a run tells while it goes on."""

    def start(self, config: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Called once, before the first sample."""

    def log(self, record: Record) -> None:
        """Called for every record, after it is on disk and outside every timed stretch."""

    def finish(self, summary_csv: Path, plot_path: Path) -> None:
        """Called once, when the tables and the plot are written."""


class NoTracker:
    """``tracker=none``."""

    def start(self, config: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Nothing to tell."""

    def log(self, record: Record) -> None:
        """Nothing to tell."""

    def finish(self, summary_csv: Path, plot_path: Path) -> None:
        """Nothing to tell."""


def build_tracker(name: str) -> Tracker:
    """The tracker of that name; only the chosen one is imported.

    Raises:
        UserError: no such tracker, or its package is not installed.
    """
    if name == "none":
        return NoTracker()
    if name == "wandb":
        from lazybench.run.tracking.weights_and_biases import WeightsAndBiases

        return WeightsAndBiases()
    raise unknown_name("tracker", name, ["none", "wandb"])
