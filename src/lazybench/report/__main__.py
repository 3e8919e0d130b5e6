"""``python -m lazybench report FOLDER...``: a summary and one page; with ``--only`` the paper's tables and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lazybench.errors import Parser, UserError, command, unknown_name


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    from lazybench.report.artefacts import CAPTIONS, add_options, made
    from lazybench.report.page import write_report
    from lazybench.report.results import load

    parser = Parser("python -m lazybench report", __doc__)
    add_options(parser, "report")
    only = f"of the paper, in place of the page's own figure: {', '.join(CAPTIONS)}"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in CAPTIONS:
            raise unknown_name("table or figure", name, CAPTIONS)
    results = load(options.folders, options.where)
    out = made(options.out, options.folders, "report")
    built = write_report(results, out, options.only)  # a figure 2 of each run has the run's name behind
    if absent := [name for name in options.only if not any(one.startswith(name) for one in built)]:
        raise UserError(f"--only {' '.join(absent)}: no run here holds what it shows; the summary and the page: {out}")
    print(f"{', '.join(['summary', *built])}, page: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
