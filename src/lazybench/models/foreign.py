"""Files that anybody may have written, as plain values: nothing in them acts, and none grows without end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml

from lazybench.errors import shown

DEEPEST = 20  # parts in parts; a record has five


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


def yaml_tree(text: str) -> Any:
    """What a YAML file holds that anybody may have written: plain values, lists and mappings, and no more of them.

    Raises:
        yaml.YAMLError: no YAML, or more than a tree.
    """
    check_tree(text)
    return yaml.safe_load(text)


def check_tree(text: str) -> None:
    """Refuse what would grow without end when it is read: a part that repeats others, parts in parts in parts.

    Raises:
        yaml.YAMLError: there is one, or the text is no YAML.
    """
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("*NAME, which repeats another part, is not read; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"its parts stand more than {DEEPEST} deep in each other")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
