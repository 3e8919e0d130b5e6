"""Which methods there are, with their parameters and papers, read from their source: importing one would import torch.

A method is a dataclass in this package with a name, ``name: ClassVar[str] = "gemfilter"``. Its fields with a plain
default are its parameters; the first line of its docstring and the papers named there introduce it in lists.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.errors import unknown_name
from lazybench.typed import build

if TYPE_CHECKING:
    from lazybench.contract import Method


@dataclass(frozen=True)
class Entry:
    """One method as its source states it."""

    name: str
    target: str  # "lazybench.methods.random_drop.RandomDrop"
    parameters: dict[str, Any]  # with their defaults; those without a plain one are left out
    summary: str  # the docstring's first line
    file: str  # "lazybench/methods/random_drop.py"
    papers: tuple[str, ...]  # arXiv numbers in the docstring's paragraph "Source:"


def catalogue() -> Mapping[str, Entry]:
    """Every method by its name."""
    import lazybench.methods

    return _read(tuple(lazybench.methods.__path__))


def build_method(name: str, params: Mapping[str, Any]) -> Method:
    """A method of the catalogue with these parameters; imports torch.

    Raises:
        UserError: a parameter that it does not have, or a value that it does not take.
    """
    if name not in catalogue():
        raise unknown_name("method", name, catalogue())
    module, _, kind = catalogue()[name].target.rpartition(".")
    method: Method = build(getattr(import_module(module), kind), params, name)
    return method


@cache
def _read(folders: tuple[str, ...]) -> Mapping[str, Entry]:
    classes: dict[str, tuple[str, ast.ClassDef]] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    classes[node.name] = (f"lazybench.methods.{path.stem}.{node.name}", node)
    entries = {}
    for target, node in classes.values():
        name = dict(_values(node)).get("name")
        if isinstance(name, str):
            documentation = ast.get_docstring(node) or ""
            entries[name] = Entry(
                name,
                target,
                dict(_parameters(node, classes)),
                documentation.split("\n")[0].replace("`", ""),
                target.rpartition(".")[0].replace(".", "/") + ".py",
                _papers(documentation),
            )
    return dict(sorted(entries.items()))


def _parameters(node: ast.ClassDef, classes: dict[str, tuple[str, ast.ClassDef]]) -> Iterator[tuple[str, Any]]:
    """Fields of the bases in this package first, as a dataclass has them."""
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _parameters(classes[base.id][1], classes)
    yield from _values(node, class_variables=False)


def _values(node: ast.ClassDef, class_variables: bool = True) -> Iterator[tuple[str, Any]]:
    """``keep: float = 0.5`` as ``("keep", 0.5)``."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            continue
        if "ClassVar" in ast.unparse(line.annotation) and not class_variables:
            continue
        try:
            yield line.target.id, ast.literal_eval(line.value)
        except ValueError:  # made by code: its configuration, if it has one, names a value
            continue


def _papers(documentation: str) -> tuple[str, ...]:
    source = documentation.partition("Source:")[2].split("\n\n")[0]
    return tuple(dict.fromkeys(re.findall(r"\b\d{4}\.\d{5}\b", source)))
