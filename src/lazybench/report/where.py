"""``--where KEY=VALUE``: the records that a report is on."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import fields

from lazybench.errors import UserError, unknown_name
from lazybench.run.record import Record

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
KEYS = tuple(field.name for field in fields(Record) if "tuple" not in str(field.type) and field.name != "details")
OF_METHODS = ("method", "params")
HELP = "only these records, as in task=qasper, method=lazyllm, 'prompt_tokens>1000'; may stand several times"
Condition = Callable[[Record], bool]


def conditions(texts: Sequence[str]) -> Condition:
    """What keeps the records that fulfil every condition.

    The baseline stays whatever is asked of a method: ratios refer to it. What is compared with > and < is a
    number, and a record without one is left out.

    Raises:
        UserError: a condition that can't be read, an unknown key, a word where a number must stand.
    """
    found = [_condition(text) for text in texts]
    return lambda record: all(fulfilled(record) for fulfilled in found)


def _condition(text: str) -> Condition:
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|=|>|<)\s*(.+?)\s*", text)
    if match is None:
        raise UserError(f"--where {text} must be a key, one of {' '.join(OPERATORS)} and a value, as in task=qasper")
    key, sign, value = match.groups()
    if key not in KEYS:
        raise unknown_name("key of --where", key, KEYS)
    compare = OPERATORS[sign]
    number = _number(value)
    if number is None and sign not in ("=", "!="):
        raise UserError(f"--where {text} compares with {value!r}, which is no number")

    def fulfilled(record: Record) -> bool:
        if key in OF_METHODS and record.method == "baseline":
            return True
        held = getattr(record, key)
        if isinstance(held, int | float) and number is not None:
            return compare(float(held), number)
        return sign in ("=", "!=") and (str(held) == value) == (sign == "=")

    return fulfilled


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
