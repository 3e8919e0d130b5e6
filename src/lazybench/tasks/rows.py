"""What every file of rows must hold: UTF-8, JSON, whole characters, each ``_id`` once, and fields of their kinds."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lazybench.errors import UserError

Row = tuple[str, dict[str, Any]]  # where it stands ("qasper.jsonl line 3"), and its fields
Kind = tuple[str, Callable[[Any], bool]]  # what a field's value must be, in words and as a check

TEXT: Kind = ("a text", lambda value: isinstance(value, str))
TEXTS: Kind = ("a list of texts", lambda value: isinstance(value, list) and all(map(TEXT[1], value)))
WHOLE_NUMBER: Kind = ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))


def read_rows(name: str, content: bytes) -> list[Row]:
    """The rows of a file: one JSON object a line, or one JSON list of objects. A byte-order mark is passed over.

    Raises:
        UserError: a line that is blank, not UTF-8, no JSON object, with half a character or with an ``_id`` that
            another one has; file and line are named.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    parsed = _listed if content.lstrip().startswith(b"[") else _lines
    rows, seen = [], dict[str, str]()
    for where, row in parsed(name, content):
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
        as_utf8(where, row)
        if "_id" in row and (first := seen.setdefault(repr(row["_id"]), where)) != where:
            raise UserError(f"{where}: _id {row['_id']!r} stands on {' '.join(first.split()[-2:])} already")
        rows.append((where, row))
    return rows


def check_fields(row: Row, needed: Mapping[str, Kind], optional: Mapping[str, Kind]) -> None:
    """Hold a row's fields against what they must be; an optional one may be null.

    Raises:
        UserError: a field that is missing or of another kind; file, line and field are named.
    """
    where, fields = row
    for name, (words, fits) in {**needed, **optional}.items():
        value = fields.get(name)
        if name in needed and name not in fields:
            raise UserError(f"{where}: field {name!r} is missing")
        if not fits(value) and (name in needed or value is not None):
            raise UserError(f"{where}: field {name!r} must be {words}, not {repr(value)[:40]}")


def as_utf8(where: str, value: Any) -> bytes:
    """The value as UTF-8 JSON.

    Raises:
        UserError: a text in it holds half a character, as ``\\ud83d`` alone is: no tokenizer takes it.
    """
    try:
        return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1]
        raise UserError(f"{where}: a text holds half a character ({half!a}); write it whole or leave it out") from None


def _lines(name: str, content: bytes) -> Iterator[tuple[str, Any]]:
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        where = f"{name} line {number}"
        if not line.strip():
            if number < len(lines):
                raise UserError(f"{where}: blank line; expected one JSON object a line")
            continue
        try:
            yield where, json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 (byte {error.start} of the line)") from None
        except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, brackets 1,000 deep
            raise UserError(f"{where}: not JSON: {' '.join(str(error).split())[:80]}") from None


def _listed(name: str, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} starts as a JSON list and is none: {' '.join(str(error).split())[:80]}") from None
    yield from ((f"{name} row {number}", row) for number, row in enumerate(rows, start=1))
