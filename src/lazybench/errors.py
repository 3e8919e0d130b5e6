"""Bad input: the one exception that it raises, the line that it prints, and what settings are checked by.

A dataclass of settings says in its annotations what is allowed: ``Share``, ``Count`` and ``Number`` below, ``Literal``,
``bool``, ``str``, ``tuple`` and ``X | None`` as they are. What is read from a file only fills the fields of a class
that the code names: no file names code.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_known: dict[Any, dict[str, Any]] = {}  # a dataclass to its fields' annotations
Share = Annotated[float, "share"]  # above 0, at most 1
Part = Annotated[float, "part"]  # from 0 to 1
Count = Annotated[int, 1]  # a whole number of at least 1
Number = Annotated[int, 0]  # a whole number of at least 0


class UserError(ValueError):
    """Bad input: the message is one line that names the value, what is allowed and what to do.

    ``run.py`` and the other command lines print it on standard error and end with exit code 2,
    without a traceback.
    """

    exit_code = 2


def refuse(error: Exception) -> int:
    """Say what is wrong on standard error, in one line; returns the exit code."""
    print(f"lazybench: {one_line(str(error))}", file=sys.stderr)
    return UserError.exit_code


def one_line(text: str) -> str:
    """Without line breaks and control characters: what a file holds must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


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


def check_share(name: str, share: object) -> None:
    """Refuse a share outside (0, 1].

    Raises:
        UserError: naming the parameter, its value and what is allowed.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
        raise UserError(f"{name}={share} must be a number above 0 and at most 1")


def check_odd(name: str, length: int) -> None:
    """Refuse an even length of a pool.

    Raises:
        UserError: it is even.
    """
    if length % 2 == 0:
        raise UserError(f"{name}={length} must be odd, so that a token lies in the middle of its pool")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with its close matches first.

    >>> str(unknown_name("task", "qaspr", ["qasper", "lcc"]))
    "unknown task 'qaspr'; did you mean qasper? Known: lcc, qasper"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"{_did_you_mean(close)[2:]} " if close else ""
    return UserError(f"unknown {kind} {name!r}; {hint}Known: {', '.join(names)}")


def _did_you_mean(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""


class Checked:
    """A frozen dataclass whose fields are checked, and lists made tuples, when it is constructed.

    ``prefix`` stands before a field's name in errors: ``taper.keep``.
    """

    def __post_init__(self) -> None:
        prefix = str(getattr(self, "name", "") or "")
        for name, hint in _hints(type(self)).items():
            known = checked(f"{prefix}.{name}" if prefix else name, getattr(self, name), hint)
            object.__setattr__(self, name, known)


def filled(kind: type[T], values: Mapping[str, Any], what: str, default: T | None = None) -> T:
    """A dataclass from plain data: nested mappings fill nested dataclasses.

    Args:
        what: the settings' name in errors: ``pruning``.
        default: where what ``values`` leaves out comes from; None: the class's own defaults.

    Raises:
        UserError: a key that the class does not have, or a value that it refuses.
    """
    hints = _hints(kind)
    for key in values:
        if key not in hints:
            raise unknown_name(f"setting of {what}", str(key), hints)
    given = {} if default is None else {name: getattr(default, name) for name in hints}
    for key, value in values.items():
        nested = next((one for one in _choices(hints[key]) if is_dataclass(one)), None)
        if nested is not None and isinstance(value, Mapping):
            given[key] = filled(nested, value, f"{what}.{key}", given.get(key))  # type: ignore[arg-type]
        else:
            given[key] = value
    return kind(**given)


def plain(value: Any) -> Any:
    """JSON types: dataclasses as mappings of their fields, tuples as lists."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def differing(value: Any, default: Any) -> dict[str, Any]:
    """Which fields of a dataclass are not as in ``default``, as JSON types, by name; nested ones likewise."""
    found: dict[str, Any] = {}
    for name in sorted(_hints(type(value))):
        own, other = getattr(value, name), getattr(default, name)
        if own != other:
            nested = is_dataclass(own) and type(own) is type(other)
            found[name] = differing(own, other) if nested else plain(own)
    return found


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value, a list as a tuple.

    Raises:
        UserError: it is not what the annotation says.
    """
    if NoneType in (choices := _choices(hint)):
        if value is None:
            return None
        choices = [choice for choice in choices if choice is not NoneType]
    if len(choices) > 1:  # the first that takes it, or the last one's error
        for choice in choices[:-1]:
            try:
                return checked(name, value, choice)
            except UserError:
                continue
    hint = choices[-1]
    if get_origin(hint) is Annotated:
        limit = get_args(hint)[1]
        if limit == "share" or (limit == "part" and value != 0):
            check_share(name, value)
        elif limit != "part":
            check_whole_number(name, value, limit)
    elif get_origin(hint) is Literal:
        if value not in get_args(hint):
            known = [str(one) for one in get_args(hint)]
            close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
            raise UserError(f"{name}={value!r} is not one of {', '.join(known)}{_did_you_mean(close)}")
    elif get_origin(hint) is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{name}={value!r} must be a list, as in '{name}=[{value}]'")
        return tuple(checked(name, one, get_args(hint)[0]) for one in value)
    elif hint is bool and not isinstance(value, bool):
        raise UserError(f"{name}={value!r} must be true or false")
    elif hint is int:
        check_whole_number(name, value, -(2**63))
    elif hint is float and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise UserError(f"{name}={value!r} must be a number")
    elif hint is str and not isinstance(value, str):
        raise UserError(f"{name}={value!r} must be a text")
    elif is_dataclass(hint) and isinstance(hint, type) and not isinstance(value, hint):
        raise UserError(f"{name}={value!r} must have parts: {', '.join(_hints(hint))}")
    return value


def _choices(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _known:
        found = get_type_hints(kind, include_extras=True)
        _known[kind] = {field.name: found[field.name] for field in fields(kind)}
    return _known[kind]
