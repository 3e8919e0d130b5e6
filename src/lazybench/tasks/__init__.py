"""Tasks: ``build_task(name, settings)`` and the public scorer ``score(task, prediction, answers, all_classes)``."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TypeVar

from lazybench.errors import UserError, unknown_name
from lazybench.tasks.base import DataSettings, Sample, Task
from lazybench.tasks.catalogue import CATEGORIES, DATASETS
from lazybench.tasks.metrics import score

__all__ = ["CATEGORIES", "DataSettings", "Sample", "Task", "build_task", "register_task", "score"]

PLAIN_TEXT = r"plain_text_[1-9]\d{0,6}"
MAKERS = {  # by how a name begins; imported with the first task of that kind
    "lm_eval/": "lm_eval_task.any_lm_eval_task",
    "longbench/": "lm_eval_task.longbench_task",
    "longbench_v2": "longbench_v2.LongBenchV2",
    "needle": "embedded.Needle",
    "plain_text_": "plain_text.PlainText",
    "stdlib_retrieval": "embedded.StdlibRetrieval",
}
REGISTERED: dict[str, type[Task]] = {}  # tasks from elsewhere, by name
Registered = TypeVar("Registered", bound=type[Task])


def register_task(kind: Registered) -> Registered:
    """Make a task of one's own known by its ``name``: a class that is a ``Task``.

    Its attribute ``parameters``, where it has one, holds the names and defaults of ``task.parameters``.

    Raises:
        UserError: another task has that name, or the class leaves out what a task must have.
    """
    name = str(getattr(kind, "name", ""))
    if lacking := sorted(getattr(kind, "__abstractmethods__", ())):
        raise UserError(f"task {name!r} of {kind.__module__} lacks {', '.join(lacking)}; see docs/extend.md")
    if name in CATEGORIES or getattr(REGISTERED.get(name), "__module__", kind.__module__) != kind.__module__:
        raise UserError(f"two tasks are named {name!r}; rename the one of {kind.__module__}")
    REGISTERED[name] = kind
    return kind


def check_name(name: str) -> None:
    """Refuse a name that no task has; of lm-eval's own, which take long to list, only whether there is a name.

    Raises:
        UserError: an unknown name.
    """
    if name not in {**CATEGORIES, **REGISTERED} and re.fullmatch(rf"lm_eval/.+|{PLAIN_TEXT}", name) is None:
        raise unknown_name("task", name, [*CATEGORIES, *REGISTERED, "plain_text_3500"])


def build_task(name: str, settings: DataSettings) -> Task:
    """The task of that name: of LongBench or LongBench v2, embedded, ``lm_eval/<name>``, or a registered one.

    Raises:
        UserError: an unknown name, or data that is missing, malformed or out of reach.
    """
    check_name(name)
    if name in REGISTERED:
        return REGISTERED[name](name, settings)
    start = "longbench/" if name.removesuffix("_e") in DATASETS else name
    module, _, maker = next(found for known, found in MAKERS.items() if start.startswith(known)).rpartition(".")
    task: Task = getattr(import_module(f"lazybench.tasks.{module}"), maker)(name, settings)
    return task
