"""The tasks that are not lm-eval's, by name."""

from __future__ import annotations

from lazybench.tasks.base import DataSettings, Task
from lazybench.tasks.embedded import Needle, StdlibRetrieval
from lazybench.tasks.longbench_v2 import LongBenchV2
from lazybench.tasks.plain_text import PlainText
from lazybench.tasks.ruler.task import RulerTask
from lazybench.tasks.stdlib_code import StdlibCode

BY_START: dict[str, type[Task]] = {
    "stdlib_code": StdlibCode,
    "stdlib_retrieval": StdlibRetrieval,
    "needle": Needle,
    "ruler_": RulerTask,
    "longbench_v2": LongBenchV2,
    "plain_text_": PlainText,
}


def build(name: str, settings: DataSettings) -> Task:
    """A task that ``tasks.check_name`` has let pass."""
    kind = next(kind for start, kind in BY_START.items() if name.startswith(start))
    return kind(name, settings)
