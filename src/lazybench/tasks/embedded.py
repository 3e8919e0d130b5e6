"""What the tasks without a data set have in common: texts of the running Python, chosen by the seed."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from lazybench.errors import UserError


def documentation() -> dict[str, str]:
    """The texts of ``pydoc_data.topics``: the language reference, by topic."""
    from pydoc_data.topics import topics

    return {name: topics[name] for name in sorted(topics)}


def python_version() -> str:
    return f"Python {platform.python_version()}"


def sha256_of(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def whole_number(parameters: Mapping[str, Any], name: str, default: int, least: int = 1) -> int:
    """A parameter of the task.

    Raises:
        UserError: it is not a whole number of at least ``least``.
    """
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"task.parameters.{name}={value!r} must be a whole number of at least {least}")
    return value
