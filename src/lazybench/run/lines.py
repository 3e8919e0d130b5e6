"""A record as one line of samples.jsonl, and back."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, fields
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from lazybench.run.record import Record

_TYPES = get_type_hints(Record)
_REQUIRED = {field.name for field in fields(Record) if field.default is MISSING}


def to_line(record: Record) -> bytes:
    """One line of strict JSON in ASCII, with its newline.

    JSON has no NaN and no infinity: such a value becomes null, and its field is named in ``details["not_finite"]``,
    so that it is not taken for one that was never measured.
    """
    not_finite: list[str] = []
    plain = {name: _finite(value, name, not_finite) for name, value in asdict(record).items()}
    if not_finite:
        plain["details"] = {**(plain["details"] or {}), "not_finite": not_finite}
    return json.dumps(plain, allow_nan=False, default=str).encode("ascii") + b"\n"


def from_line(line: bytes) -> Record:
    """Read a line; unknown fields are passed over, missing optional ones take their defaults.

    Raises:
        ValueError: not a JSON object, a field missing that every record has, a value of the wrong type.
    """
    value = json.loads(line, parse_constant=_refuse)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if missing := _REQUIRED - value.keys():
        raise ValueError(f"no {', '.join(sorted(missing))}")
    known = {name: value[name] for name in _TYPES if name in value}
    for name, content in known.items():
        if not _fits(content, _TYPES[name]):
            raise ValueError(f"{name}={content!r}"[:80] + f" is not {_TYPES[name]}")
        if isinstance(content, list):
            known[name] = tuple(tuple(item) if isinstance(item, list) else item for item in content)
    return Record(**known)


def _finite(value: Any, name: str, not_finite: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if name not in not_finite:
            not_finite.append(name)
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item, name, not_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, name, not_finite) for item in value]
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if arguments[0] is float:  # thousands of numbers a line: compare types, not values
            return {type(item) for item in value} <= {float, int, type(None)}
        return all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
