"""``python -m lazybench report FOLDER...``: a summary and one page; with ``--only`` the paper's tables and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lazybench.errors import UserError, command, unknown_name


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    from lazybench.report import artefacts
    from lazybench.report.figures.style import save
    from lazybench.report.page import SETTINGS_CAPTION, settings_figures, write_page
    from lazybench.report.paper import TITLE
    from lazybench.report.results import load
    from lazybench.report.text import markdown
    from lazybench.run.files import write_atomically

    parser = argparse.ArgumentParser(prog="python -m lazybench report", description=__doc__)
    artefacts.add_options(parser, "report")
    only = f"of the paper, in place of the page's own figure: {', '.join(artefacts.CAPTIONS)}"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in artefacts.CAPTIONS:
            raise unknown_name("table or figure", name, artefacts.CAPTIONS)
    results = load(options.folders, options.where, options.exclude)
    out = artefacts.made(options.out, options.folders, "report")
    results.write_summary(out)
    tables = artefacts.build_tables(results, options.only)
    for name, (caption, table) in tables.items():
        write_atomically(out / f"{name}.md", f"{caption}. Paper: {TITLE}\n\n{markdown(table)}".encode())
    drawn = list(artefacts.build_figures(results, options.only))
    if not options.only:
        drawn += ((name, SETTINGS_CAPTION, figure) for name, figure in settings_figures(results).items())
    for name, _, figure in drawn:
        save(figure, out / f"{name}.png")
    write_page(out / "index.html", results, [(name, caption) for name, caption, _ in drawn], tables.values())
    built = (*tables, *(name for name, _, _ in drawn))  # a figure 2 of each run has the run's name behind
    if absent := [name for name in options.only if not any(one.startswith(name) for one in built)]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {out}")
    print(f"{', '.join(['summary', *built])}, page: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
