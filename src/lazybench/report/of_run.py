"""What a run leaves beside its records: summary, table, plot and page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import draw
from lazybench.report.names import with_setting
from lazybench.report.page import write_page
from lazybench.report.results import Results
from lazybench.run.reading import read_run


def write_run_report(folder: Path) -> None:
    """Write ``summary.csv``, ``table.md``, ``tradeoff.png`` and ``index.html`` beside a run's samples.jsonl, each
    atomically.

    Raises:
        UserError: the folder is no run folder.
    """
    run = read_run(Path(folder))
    # written before the marker of its end, and for one shard alone: neither is a fault of this table
    results = Results((replace(run, finished=True, config={**run.config, "shard": "0/1"}),))
    results.write_summary(run.path)
    save(draw(with_setting(results.summary)), run.path / "tradeoff.png")
    write_page(run.path / "index.html", results)
