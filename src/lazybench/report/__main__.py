"""``python -m lazybench.report RESULTS_FOLDER...``: every table and figure that the results allow, and one page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lazybench.errors import UserError, command, unknown_name
from lazybench.pruning.settings import path_of
from lazybench.report import where as conditions


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lazybench.report", description=__doc__)
    parser.add_argument("folders", type=path_of, nargs="+", metavar="RESULTS_FOLDER", help="holds runs, at any depth")
    parser.add_argument("--out", type=path_of, help="where to write; default: report/ in the first folder")
    parser.add_argument("--only", action="append", metavar="NAME", help="table1, fig5, ...; page and summary always")
    parser.add_argument(
        "--no-texts", action="store_true", help="leave prompt heads and answers out of the page (predictions stay)"
    )
    parser.add_argument("--data-root", type=path_of, help="LongBench-schema JSONL files, for prompts and answers")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=conditions.HELP)
    options = parser.parse_args(arguments)
    build(options.folders, options.out, options.only, not options.no_texts, options.data_root, options.where)
    return 0


def build(
    folders: list[Path],
    out: Path | None,
    only: list[str] | None,
    texts: bool,
    data_root: Path | None,
    where: Sequence[str] = (),
) -> None:
    """Write everything and print where.

    Raises:
        UserError: nothing to report on, an unknown artefact, or one that these results can't show.
    """
    from lazybench.report import artefacts, make_folder, write_text
    from lazybench.report.page import write_page
    from lazybench.report.results import load
    from lazybench.report.tables import run_table

    for name in only or ():
        if name not in artefacts.NAMES:
            raise unknown_name("table or figure", name, artefacts.NAMES)
    results = load(folders, where)
    wanted = tuple(only or artefacts.NAMES)
    out = out or folders[0] / "report"
    make_folder(out)
    write_text(out / "summary.csv", results.summary.to_csv(index=False))
    write_text(out / "table.md", run_table(results.summary, results.notes))
    tables = artefacts.build_tables(results, wanted)
    for name, (caption, table) in tables.items():
        artefacts.write_table(name, caption, table, out)
    figures = list(artefacts.build_figures(results, wanted))
    for name, _, figure in figures:
        artefacts.write_figure(name, figure, out)
    write_page(out / "index.html", results, tables, figures, texts, data_root)
    built = (*tables, *(name for name, _, _ in figures))  # a figure of each model has its name behind
    if absent := [name for name in only or () if not any(one.startswith(name) for one in built)]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {out}")
    print(f"{', '.join(['summary', *tables, *(name for name, _, _ in figures)])}: {out}")
    print(f"page: {out / 'index.html'}")


if __name__ == "__main__":
    sys.exit(main())
