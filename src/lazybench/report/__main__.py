"""``python -m lazybench report FOLDER...``: every table and figure that the results allow, and one page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lazybench.errors import UserError, command, unknown_name
from lazybench.pruning.settings import path_of


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    from lazybench.report.artefacts import CAPTIONS, add_options

    parser = argparse.ArgumentParser(prog="python -m lazybench report", description=__doc__)
    add_options(parser, "report")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(CAPTIONS)}; page always")
    parser.add_argument("--no-texts", action="store_false", dest="texts", help="no prompts and answers in the page")
    parser.add_argument("--data-root", type=path_of, help="LongBench-schema JSONL files, for prompts and answers")
    build(**vars(parser.parse_args(arguments)))
    return 0


def build(
    folders: Sequence[Path],
    out: Path | None = None,
    only: Sequence[str] | None = None,
    texts: bool = True,
    data_root: Path | None = None,
    where: Sequence[str] = (),
    exclude: Sequence[Path] = (),
    by: Sequence[str] = (),
    formats: str = "md,png",
) -> None:
    """Write everything and print where.

    Raises:
        UserError: nothing to report on, an unknown artefact, or one that these results can't show.
    """
    from lazybench.report import artefacts
    from lazybench.report.page import write_page
    from lazybench.report.results import load

    for name in only or ():
        if name not in artefacts.CAPTIONS:
            raise unknown_name("table or figure", name, artefacts.CAPTIONS)
    results = load(folders, where, exclude, by)
    wanted = tuple(only or artefacts.CAPTIONS)
    out, kinds = artefacts.prepare(out, folders, "report", formats)
    results.write_summary(out)
    tables, figures = artefacts.build_tables(results, wanted), list(artefacts.build_figures(results, wanted))
    for name, (caption, table) in tables.items():
        artefacts.write_table(name, caption, table, out, kinds)
    for name, _, figure in figures:
        artefacts.write_figure(name, figure, out, kinds)
    write_page(out / "index.html", results, tables, figures, texts, data_root)
    built = (*tables, *(name for name, _, _ in figures))  # a figure of each model has its name behind
    if absent := [name for name in only or () if not any(one.startswith(name) for one in built)]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {out}")
    print(f"{', '.join(['summary', *built])}, page: {out / 'index.html'}")


if __name__ == "__main__":
    sys.exit(main())
