"""A record as one line of samples.jsonl, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from lazybench.errors import shown
from lazybench.run.record import Record

_TYPES = get_type_hints(Record)
DEEPEST = 20  # parts in parts; a record has five
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
    value = read_json(line, free=("prediction",))
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


def read_json(text: str | bytes, free: Sequence[str] = ()) -> Any:
    """What a JSON file holds that anybody may have written.

    Args:
        free: keys of any text, half a character too: what a model answered.

    Raises:
        ValueError: no JSON; NaN; a whole number that no table holds; half a character; parts in parts without end.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_whole)
    except RecursionError:
        raise ValueError("its parts hold parts without end") from None
    _check_plain({key: part for key, part in value.items() if key not in free} if isinstance(value, dict) else value)
    return value


def _whole(digits: str) -> int:
    if len(digits) > 18 and not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError(f"{shown(value)} is too large")
    return int(digits)


def _check_plain(value: Any, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise ValueError("its parts hold parts without end")
    if isinstance(value, str):
        value.encode()  # half a character is none, and could be written nowhere
    elif isinstance(value, dict):
        for key, part in value.items():
            key.encode()
            _check_plain(part, depth + 1)
    elif isinstance(value, list):
        for part in value if value and not isinstance(value[0], int | float) else ():
            _check_plain(part, depth + 1)


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
        kinds = (int, float) if hint is float else int
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)  # 1e999 is inf
    return isinstance(value, origin or hint)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
