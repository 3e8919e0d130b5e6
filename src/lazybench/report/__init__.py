"""Tables, figures and the page, from what the store wrote; nothing here measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lazybench.errors import UserError
from lazybench.run.files import write_atomically


def write_run_report(folder: Path) -> list[str]:
    """Write ``summary.csv``, ``table.md``, ``tradeoff.png`` and ``index.html`` beside a run's samples.jsonl, each
    atomically.

    Returns:
        The run in plain words; see ``words.plain_words``.

    Raises:
        UserError: the folder is no run folder.
    """
    # pandas, scipy and matplotlib take a second to import: only who reports pays it
    from lazybench.report.figures.style import save
    from lazybench.report.figures.tradeoff import tradeoff
    from lazybench.report.page import write_page
    from lazybench.report.results import Results
    from lazybench.report.tables import run_table
    from lazybench.report.words import plain_words
    from lazybench.run.reading import read_run

    folder = Path(folder)
    # written before the marker of its end, and for one shard alone: neither is a fault of this table
    run = replace(read_run(folder), finished=True, shards=("0/1",))
    results = Results((run,), ())
    summary = results.summary
    write_text(folder / "summary.csv", summary.to_csv(index=False))
    write_text(folder / "table.md", run_table(summary, results.notes))
    save(tradeoff(summary), folder / "tradeoff.png")
    write_page(folder / "index.html", results, {}, [], texts=True, data_root=None)
    return plain_words(summary)


def write_text(path: Path, text: str) -> None:
    """Write a file at once or not at all; see ``write_atomically``."""
    write_atomically(path, text.encode("utf-8"))


def make_folder(out: Path) -> None:
    """Make what ``--out`` names.

    Raises:
        UserError: it can't be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
