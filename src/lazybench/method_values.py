"""A method's parameters judged before its module is imported: a bad value is answered at once.

A method checks its own parameters in ``__post_init__``, in plain Python; its module imports torch, which takes
seconds. So those checks are read from the source, as ``methods/catalogue.py`` reads everything else, and run alone.
What they can't decide without torch is left to the method, which checks all of it again when it is built.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lazybench
from lazybench.errors import UserError, naming
from lazybench.methods.catalogue import catalogue

WITHOUT_TORCH = ("lazybench.errors", "lazybench.pruning.budgets", "lazybench.pruning.schedule")


def check_values(node: Mapping[str, Any]) -> None:
    """Run a method's own checks on ``node``, its class (``_target_``) and parameters.

    Raises:
        UserError: the method's own, for a value that is not allowed.
    """
    entry = next((entry for entry in catalogue().values() if entry.target == node["_target_"]), None)
    if entry is None:  # a class of somebody else's
        return
    path = Path(lazybench.__file__).parents[1] / entry.file
    if not path.is_file():
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = ast.Module(list(_checks(tree, entry.target.rpartition(".")[2])), type_ignores=[])
    names: dict[str, Any] = {}
    parameters = {key: value for key, value in node.items() if key != "_target_"}
    try:
        exec(compile(checks, entry.file, "exec"), names)
        names.get("__post_init__", lambda method: None)(SimpleNamespace(name=entry.name, **parameters))
    except UserError as error:
        raise naming(entry.name, error) from None
    except Exception:  # a check that needs more than values: the method's own constructor makes it
        return


def _checks(tree: ast.Module, class_name: str) -> Iterator[ast.stmt]:
    """The class's ``__post_init__``, and the imports that it may use."""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module in (*WITHOUT_TORCH, "__future__"):
            yield statement
        elif isinstance(statement, ast.ClassDef) and statement.name == class_name:
            yield from (part for part in statement.body if getattr(part, "name", "") == "__post_init__")
