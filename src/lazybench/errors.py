"""The one exception that bad input raises, the line that it prints, and the commands that print it."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

P = ParamSpec("P")
OFFLINE = "can't reach the hub, and no whole copy is in its cache; go online (unset HF_HUB_OFFLINE)"


class UserError(ValueError):
    """Bad input: the message is one line that names the value, what is allowed and what to do.

    ``run.py`` and the other command lines print it on standard error and end with exit code 2,
    without a traceback.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(one_line(message).split()))


class SampleError(UserError):
    """Bad input of one sample: it is recorded as failed, and the run goes on."""


def refuse(error: UserError) -> int:
    """Say what is wrong on standard error; returns the exit code."""
    print(f"lazybench: {error}", file=sys.stderr)
    return UserError.exit_code


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A ``main`` of any terminal, with ``--version``, that ends bad input with one line; it gives the exit code."""

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        show_any_character()
        if "--version" in sys.argv[1:]:
            from lazybench import __version__  # which imports this module

            print(f"lazybench {__version__}")
            return 0
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, where it is noticed that nobody reads on
        except UserError as error:
            return refuse(error)
        except BrokenPipeError:  # as before ``| head``, which has read what it wants
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return run


class Parser(argparse.ArgumentParser):
    """Options of a command: bad ones end in one line, and the description stands as it was written."""

    def __init__(self, prog: str, description: str | None) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=(description or "").replace("``", ""), formatter_class=raw)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help says what there is")


def show_any_character() -> None:
    """A character that the terminal can't show becomes a question mark: no table ends a run that was measured."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def one_line(text: str) -> str:
    """Without line breaks and control characters: what a file holds must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def naming(what: str, error: Exception) -> UserError:
    """The error's one line, which says what it is about.

    >>> str(naming("taper", UserError("chunk=0 must be a whole number of at least 1")))
    'taper: chunk=0 must be a whole number of at least 1'
    """
    named = isinstance(error, UserError) and what in str(error)
    return UserError(str(error) if named else f"{what}: {error}")


def shown(value: object) -> str:
    """A value in one line of at most 80 characters, whatever it is."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def naming_errors(what: str) -> Iterator[None]:
    """Inside, a ``UserError`` says what it is about; see ``naming``."""
    try:
        yield
    except UserError as error:
        raise naming(what, error) from None


@contextmanager
def library_errors(what: str, otherwise: str = "") -> Iterator[None]:
    """Inside, whatever a library raises on foreign data is one line; a ``UserError`` stays as it is.

    Args:
        what: is wrong; the library's own words follow it.
        otherwise: what to do, behind them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300].removesuffix('.')}"
        raise UserError(f"{what}: {OFFLINE if unreachable(error) else reason}{otherwise}") from error


def unreachable(error: Exception) -> bool:
    """No answer at all, or a hub that says it is ill; the client library's exceptions differ by version."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status >= 500 or bool(
        kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "TransportError", "Timeout"}
    )


def check_whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse a setting that is no whole number of at least ``least``; ``True`` is none.

    Raises:
        UserError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}={shown(value)} must be a whole number of at least {least}")


def check_share(name: str, share: object) -> None:
    """Refuse a share outside (0, 1].

    Raises:
        UserError: naming the parameter, its value and what is allowed.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise UserError(f"{name}={share} must be a number above 0 and at most 1")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with its close matches; a long list is left to ``--help``.

    >>> str(unknown_name("task", "qaspr", ["qasper", "lcc"]))
    "unknown task 'qaspr'; did you mean qasper? Known: lcc, qasper"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    listed = ", ".join(names)
    listed = f"Known: {listed}" if len(listed) < 450 else f"`--help {kind}s` lists them"
    return UserError(f"unknown {kind} {name!r}; {hint}{listed}")
