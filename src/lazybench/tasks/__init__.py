"""Tasks: ``build_task(name, settings)`` and the public scorer ``score(task, prediction, answers, all_classes)``."""

from __future__ import annotations

import re

from lazybench.errors import unknown_name
from lazybench.tasks.base import DataSettings, Sample, Task
from lazybench.tasks.catalogue import CATEGORIES, DATASETS
from lazybench.tasks.metrics import score

__all__ = ["CATEGORIES", "DataSettings", "Sample", "Task", "build_task", "score"]

PLAIN_TEXT = r"plain_text_[1-9]\d{0,6}"


def check_name(name: str) -> None:
    """Refuse a name that no task has; of lm-eval's own, which take long to list, only whether there is a name.

    Raises:
        UserError: an unknown name.
    """
    if name not in CATEGORIES and re.fullmatch(rf"lm_eval/.+|{PLAIN_TEXT}", name) is None:
        raise unknown_name("task", name, [*CATEGORIES, "plain_text_3500"])


def build_task(name: str, settings: DataSettings) -> Task:
    """The task of that name: a LongBench, LongBench v2 or RULER task, an embedded one, or ``lm_eval/<name>``.

    Raises:
        UserError: an unknown name, or data that is missing, malformed or out of reach.
    """
    check_name(name)
    if name.startswith("lm_eval/") or name.removesuffix("_e") in DATASETS:
        from lazybench.tasks import lm_eval_task

        return lm_eval_task.build(name, settings)
    from lazybench.tasks import building

    return building.build(name, settings)
