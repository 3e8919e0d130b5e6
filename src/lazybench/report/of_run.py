"""What a run leaves beside its records: summary, table, plot and page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lazybench.report.artefacts import TRADEOFF, write_figures
from lazybench.report.figures import tradeoff
from lazybench.report.leaderboard import measured_settings
from lazybench.report.names import category_rows, short_names, with_setting
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
    settings, summary = measured_settings(results), with_setting(results.summary)
    figures = []
    if len(settings):
        figures.append(tradeoff.settings_figure(settings, names=short_names(category_rows(summary))))
    elif len(summary):  # without fidelity: by score, category by category
        figures.append(tradeoff.draw(summary, next(iter(tradeoff.qualities(summary)), "fidelity_top1")))
    shown = write_figures([("tradeoff", TRADEOFF, figure) for figure in figures], run.path, ("png",))
    write_page(run.path / "index.html", results, shown)
