"""Settings as data: plain data (YAML, the command line, a record) becomes typed dataclasses, and back.

Each value is held against its field's annotation: ``Share``, ``Count``, ``Number`` and ``Odd`` below, ``Literal`` and
plain types as they are. The caller chooses the class. Nothing in the data can name one, or anything else of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from lazybench.errors import UserError, check_share, check_whole_number, naming_errors, shown, unknown_name

T = TypeVar("T")
ABSENT = "???"  # OmegaConf's mark of a value that must be given
Share = Annotated[float, "share"]  # above 0, at most 1
Part = Annotated[float, "part"]  # from 0 to 1
Count = Annotated[int, 1]  # a whole number of at least 1
Number = Annotated[int, 0]  # a whole number of at least 0
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
Odd = Annotated[int, "odd"]  # a pool's length: a token lies in its middle
_known: dict[Any, dict[str, Any]] = {}  # a dataclass to its fields' annotations


class Checked:
    """A frozen dataclass whose fields are checked, and lists made tuples, when it is constructed.

    Its ``name`` stands before a field's in errors: ``taper.keep``.

    Raises:
        UserError: a value that its annotation does not allow.
    """

    def __post_init__(self) -> None:
        prefix = str(getattr(self, "name", "") or "")
        for name, hint in _hints(type(self)).items():
            value = typed(hint, getattr(self, name), f"{prefix}.{name}" if prefix else name)
            object.__setattr__(self, name, value)


def build(kind: type[T], values: object, name: str, default: T | None = None) -> T:
    """A dataclass from a mapping of its fields; fields that are dataclasses are built too.

    Args:
        name: what the values are called in errors: ``"pruning"`` makes ``pruning.keep=...``.
        default: where the fields come from that ``values`` leaves out; None: the class's own defaults.

    Raises:
        UserError: a key that ``kind`` does not have, one that it needs, a value of another type or out of range.
    """
    known = {field.name: field for field in fields(cast(Any, kind)) if field.init}
    types = _hints(kind)
    if not isinstance(values, Mapping):
        raise UserError(f"{name}={_shown(values)} must have parts, some of: {', '.join(known)}")
    for key in values:
        if key not in known:
            raise unknown_name(f"key of {name}", str(key), known)
    given = {} if default is None else {key: getattr(default, key) for key in known}
    for key, value in values.items():
        if value is not ABSENT and value != ABSENT:
            given[key] = typed(types[key], value, f"{name}.{key}", given.get(key))
    for key, field in known.items():
        if key not in given and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{name}.{key} has no value; give it one")
    with naming_errors(name):
        return kind(**given)


def typed(hint: Any, value: object, name: str, default: Any = None) -> Any:
    """``value`` as a field of this type holds it: a list as a tuple, text as a path.

    Whole numbers serve as shares, and numbers as text (``tag=2``, ``model.path=7``).

    Raises:
        UserError: it is of another type; the line names it ``name``.
    """
    options = get_args(hint)
    nullable = get_origin(hint) in (Union, UnionType)
    if nullable:
        if value is None:
            return None
        (hint,) = (option for option in options if option is not NoneType)
        options = get_args(hint)
    limit = None
    if get_origin(hint) is Annotated:
        hint, limit = get_args(hint)
        options = get_args(hint)
    origin = get_origin(hint)
    if is_dataclass(hint):
        known = default if isinstance(default, cast(type, hint)) else None
        return value if isinstance(value, cast(type, hint)) else build(cast(type, hint), value, name, known)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(typed(options[0], item, f"{name}[{place}]") for place, item in enumerate(value))
    fits: dict[Any, bool] = {
        bool: isinstance(value, bool),
        int: _is_number(value, int),
        float: _is_number(value, int | float),
        str: isinstance(value, str) or _is_number(value, int | float),
        Path: isinstance(value, str | Path) or _is_number(value, int | float),
        Mapping: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
        Literal: any(type(value) is type(option) and value == option for option in options),
    }
    if not fits.get(origin or hint, hint is Any):
        if origin is Literal and isinstance(value, str):
            raise unknown_name(name, value, [*map(str, options), *([limit] if limit else [])])
        none = ", or null (in Python None)" if nullable else ""
        raise UserError(f"{name}={_shown(value)} must be {_words(hint)}{none}")
    if limit == "share" or (limit == "part" and value != 0):
        check_share(name, value)
    elif limit == "odd":
        check_whole_number(name, value)
        if cast(int, value) % 2 == 0:
            raise UserError(f"{name}={value} must be odd, so that a token lies in the middle of its pool")
    elif isinstance(limit, int):
        check_whole_number(name, value, limit)
    if hint is Path:
        return path_of(cast(Any, value))
    return str(value) if hint is str else value


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


def path_of(text: str | Path | float) -> Path:
    """The path that an option names, ``~`` expanded: every option that takes a path reads it here.

    Raises:
        UserError: a ``~name`` of no user.
    """
    try:
        return Path(str(text)).expanduser()
    except RuntimeError:
        raise UserError(
            f"{text}: no such user's home; write the folder out, or ./{text} where it is named so"
        ) from None


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _known:
        found = get_type_hints(kind, include_extras=True)
        _known[kind] = {field.name: found[field.name] for field in fields(kind)}
    return _known[kind]


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value == value  # nan is none


def _words(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    if get_origin(hint) is Literal:
        return " or ".join(", ".join(map(str, get_args(hint))).rsplit(", ", 1))
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        return f"a list of {({int: 'whole numbers', float: 'numbers'}).get(kind, 'names')} in brackets"
    return "KEY: VALUE pairs in braces"


def _shown(value: object) -> str:
    """As it is typed: null, true, text in quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(repr(value))
