"""The house: which rooms there are, and that imports between them go one way."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "src" / "lazybench"
LOOSE = {"__init__.py", "__main__.py", "errors.py"}
ROOMS = {"pruning", "models", "methods", "tasks", "measure", "run", "report", "cli", "integrations", "serving"}
FLOORS = 9
IMPORTS_IN_FUNCTIONS = 60


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in typing_only:
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            yield from names


def module_file(name: str) -> Path | None:
    """The file that ``lazybench.a.b.thing`` comes from: a module's, or the package's that holds the name."""
    parts = name.split(".")[1:]
    for end in range(len(parts), -1, -1):
        place = PACKAGE.joinpath(*parts[:end])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path if len(parts) - end <= 1 else None
    return None


FILES = sorted(PACKAGE.rglob("*.py"))
EDGES = {
    path: sorted({found for name in imports(path) if name.startswith("lazybench.") and (found := module_file(name))})
    for path in FILES
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def test_there_are_these_rooms_and_no_loose_module() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.is_symlink()} - {"__pycache__"}
    assert found <= ROOMS
    assert {path.name for path in PACKAGE.glob("*.py")} == LOOSE


def test_every_import_leads_to_a_file() -> None:
    missing = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in FILES
        for name in imports(path)
        if name.startswith("lazybench.") and module_file(name) is None
    ]
    assert missing == []


def test_rooms_lie_above_each_other() -> None:
    below: dict[str, set[str]] = {}
    for path, targets in EDGES.items():
        own = below.setdefault(room(path), set())
        own |= {room(target) for target in targets} - {room(path)}
    del below["__main__.py"], below["__init__.py"]
    for others in below.values():
        others.discard("__init__.py")  # the version; a name of the package is imported with its first use
    floors: dict[str, int] = {}
    for name in TopologicalSorter(below).static_order():  # a circle raises
        floors[name] = 1 + max((floors[other] for other in below.get(name, ())), default=0)
    assert max(floors.values()) <= FLOORS, floors


def test_no_two_files_import_each_other_in_a_circle() -> None:
    version = PACKAGE / "__init__.py"
    TopologicalSorter({path: set(targets) - {path, version} for path, targets in EDGES.items()}).prepare()


def test_few_imports_stand_inside_functions() -> None:
    """Where starting fast needs them: ``--help`` and a bad value wait for neither torch nor pandas."""
    inside = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inside += sum(isinstance(line, ast.Import | ast.ImportFrom) for line in ast.walk(node))
    assert inside <= IMPORTS_IN_FUNCTIONS


def test_the_core_needs_torch_and_transformers_alone() -> None:
    known = {"torch", "transformers", "lazybench"}
    for path in (PACKAGE / "pruning").glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in known or top in sys.stdlib_module_names, (path.name, name)


def test_the_quick_loop_names_tests_that_are_there() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"\w+\.py", text.partition("QUICK :=")[2].partition("\n\n")[0])
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "tests" / f"test_{name}").exists()]
