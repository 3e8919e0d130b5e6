"""``python -m lazybench report FOLDER...``: a summary and one page; with ``--only`` the paper's tables and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lazybench.errors import Parser, UserError, command


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    from lazybench.report.page import FIGURES, TABLES, write_report
    from lazybench.report.results import read_options

    parser = Parser("python -m lazybench report", __doc__)
    known = [*TABLES, *FIGURES]
    only = f"of the paper, in place of the page's own figure: {', '.join(known)}"
    parser.add_argument("--only", action="append", default=[], choices=known, metavar="NAME", help=only)
    options, results = read_options(parser, arguments, "report")
    built = write_report(results, options.out, options.only)
    page = options.out / "index.html"
    if absent := [name for name in options.only if name not in built]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {page}")
    print(f"{', '.join(['summary', *built])}, page: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
