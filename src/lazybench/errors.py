"""The one exception that bad input raises, and the line it prints."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message is one line that names the value, what is allowed and what to do.

    ``run.py`` and the other command lines print it on standard error and end with exit code 2,
    without a traceback.
    """

    exit_code = 2


class SampleError(UserError):
    """Bad input of one sample: it is recorded as failed, and the run goes on."""


def refuse(error: Exception) -> int:
    """Say what is wrong on standard error, in one line; returns the exit code."""
    print(f"lazybench: {error}", file=sys.stderr)
    return UserError.exit_code


def naming(what: str, error: Exception) -> UserError:
    """The error's one line, which says what it is about.

    >>> str(naming("taper", UserError("chunk=0 must be a whole number of at least 1")))
    'taper: chunk=0 must be a whole number of at least 1'
    """
    line = " ".join(str(error).split())
    return UserError(line if isinstance(error, UserError) and what in line else f"{what}: {line}")


def check_whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse a setting that is no whole number of at least ``least``; ``True`` is none.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}={value} must be a whole number of at least {least}")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with its close matches first.

    >>> str(unknown_name("task", "qaspr", ["qasper", "lcc"]))
    "unknown task 'qaspr'; did you mean qasper? Known: lcc, qasper"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UserError(f"unknown {kind} {name!r}; {hint}Known: {', '.join(names)}")
