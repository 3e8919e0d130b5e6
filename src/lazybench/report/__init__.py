"""Tables, figures and the page, from what the store wrote; nothing here measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path


def write_run_report(folder: Path) -> list[str]:
    """Write ``summary.csv``, ``table.md``, ``tradeoff.png`` and ``index.html`` beside a run's samples.jsonl, each
    atomically.

    Returns:
        The run in plain words; see ``notes.plain_words``.

    Raises:
        UserError: the folder is no run folder.
    """
    # pandas, scipy and matplotlib take a second to import: only who reports pays it
    from lazybench.report.artefacts import write_text
    from lazybench.report.figures.style import save
    from lazybench.report.figures.tradeoff import draw
    from lazybench.report.names import with_setting
    from lazybench.report.notes import plain_words
    from lazybench.report.page import write_page
    from lazybench.report.results import Results
    from lazybench.report.tables import run_table
    from lazybench.store.reading import read_run

    run = read_run(Path(folder))
    # written before the marker of its end, and for one shard alone: neither is a fault of this table
    results = Results((replace(run, finished=True, config={**run.config, "shard": "0/1"}),))
    write_text(run.path / "summary.csv", results.summary.to_csv(index=False))
    write_text(run.path / "table.md", run_table(results.summary, results.notes))
    save(draw(with_setting(results.summary)), run.path / "tradeoff.png")
    write_page(run.path / "index.html", results, {}, [], texts=True, data_root=None)
    return plain_words(results.summary)
