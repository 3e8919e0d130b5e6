"""``python -m lazybench report FOLDER...``: a summary and one page; with ``--only`` the paper's tables and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lazybench.errors import UserError, command, unknown_name
from lazybench.pruning.settings import path_of


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    from lazybench.report import artefacts
    from lazybench.report.leaderboard import measured_settings
    from lazybench.report.page import write_page
    from lazybench.report.results import load

    parser = argparse.ArgumentParser(prog="python -m lazybench report", description=__doc__)
    artefacts.add_options(parser, "report")
    only = f"of the paper, in place of the page's own figure: {', '.join(artefacts.CAPTIONS)}"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    parser.add_argument("--no-texts", action="store_false", dest="texts", help="no prompts and answers in the page")
    parser.add_argument("--data-root", type=path_of, help="LongBench-schema JSONL files, for prompts and answers")
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in artefacts.CAPTIONS:
            raise unknown_name("table or figure", name, artefacts.CAPTIONS)
    results = load(options.folders, options.where, options.exclude, options.by)
    out, formats = artefacts.prepare(options.out, options.folders, "report", options.formats)
    results.write_summary(out)
    tables = artefacts.build_tables(results, options.only)
    for name, (caption, table) in tables.items():
        artefacts.write_table(name, caption, table, out, formats)
    asked = options.only
    drawn = artefacts.build_figures(results, asked) if asked else artefacts.tradeoffs(measured_settings(results))
    figures = artefacts.write_figures(list(drawn), out, formats)
    write_page(out / "index.html", results, figures, tables.values(), options.texts, options.data_root)
    built = (*tables, *(name for name, _ in figures))  # a figure of each model has its name behind
    if absent := [name for name in asked if not any(one.startswith(name) for one in built)]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {out}")
    print(f"{', '.join(['summary', *built])}, page: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
