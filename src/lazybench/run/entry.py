"""What every command line does first and last: any terminal, ``--version``, one line for bad input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from lazybench import __version__
from lazybench.errors import UserError, refuse

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A ``main(arguments=None)`` that gives the exit code; without arguments it reads this process's."""

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        show_any_character()
        given = args[0] if args and args[0] is not None else sys.argv[1:]
        if isinstance(given, list) and "--version" in given:
            print(f"lazybench {__version__}")
            return 0
        try:
            return main(*args, **kwargs)
        except UserError as error:
            return refuse(error)
        except Exception as error:
            from lazybench.cli.hydra_errors import is_hydras, one_line

            if not is_hydras(error):
                raise
            return refuse(one_line(error))

    return run


def show_any_character() -> None:
    """A character that the terminal can't show becomes a question mark: no table ends a run that was measured."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
