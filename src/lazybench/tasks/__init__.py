"""Tasks: ``build_task(name, settings)`` and the public scorer ``score(task, prediction, answers, all_classes)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from lazybench.errors import UserError, unknown_name
from lazybench.tasks.base import DataSettings, Sample, Task
from lazybench.tasks.categories import CATEGORIES, CHINESE, EXTENDED, LONGBENCH
from lazybench.tasks.metrics import score

__all__ = ["CATEGORIES", "DataSettings", "Sample", "Task", "build_task", "register_task", "score"]

PLAIN_TEXT = r"plain_text_[1-9]\d{0,6}"
REGISTERED: dict[str, Callable[[DataSettings], Task]] = {}  # tasks from elsewhere, by name
Registered = TypeVar("Registered", bound=Callable[[DataSettings], Any])


def register_task(kind: Registered) -> Registered:
    """Make a task of one's own known by its ``name``: a class that takes ``DataSettings`` and is a ``Task``.

    Its attribute ``parameters``, where it has one, holds the names and defaults of ``task.parameters``.

    Raises:
        UserError: another task has that name.
    """
    name = str(getattr(kind, "name", ""))
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
    """The task of that name: of LongBench, LongBench v2 or RULER, embedded, ``lm_eval/<name>``, or a registered one.

    Raises:
        UserError: an unknown name, or data that is missing, malformed or out of reach.
    """
    check_name(name)
    if name in REGISTERED:
        return REGISTERED[name](settings)
    if name in (*LONGBENCH, *CHINESE, *EXTENDED):
        from lazybench.tasks.lm_eval_task import longbench_task

        return longbench_task(name, settings)
    if name.startswith("lm_eval/"):
        from lazybench.tasks.lm_eval_task import any_lm_eval_task

        return any_lm_eval_task(name.removeprefix("lm_eval/"), settings)
    if name == "stdlib_code":
        from lazybench.tasks.stdlib_code import StdlibCode

        return StdlibCode(settings)
    if name == "stdlib_retrieval":
        from lazybench.tasks.stdlib_retrieval import StdlibRetrieval

        return StdlibRetrieval(settings)
    if name == "needle":
        from lazybench.tasks.needle import Needle

        return Needle(settings)
    if name.startswith("ruler_") and name in CATEGORIES:
        from lazybench.tasks.ruler.task import RulerTask

        return RulerTask(name, settings)
    if name.startswith("longbench_v2") and name in CATEGORIES:
        from lazybench.tasks.longbench_v2 import LongBenchV2

        return LongBenchV2(name, settings)
    from lazybench.tasks.plain_text import PlainText

    return PlainText(settings, int(name.removeprefix("plain_text_")))
