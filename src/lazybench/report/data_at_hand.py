"""The data that a run measured, where it is at hand and still the same. A run folder names data here, never code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazybench.errors import UserError, naming
from lazybench.run.reading import Run
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings, Task

NAMES_CODE = "include_path"  # a folder whose task files import Python


def data_settings(run: Run, data_root: Path | None) -> DataSettings:
    """What the run's configuration says of its data, without what names code.

    Args:
        data_root: where its files lie; None: where the run had them.
    """
    root = data_root or (run.config.get("data") or {}).get("root")
    parameters = run.config["task"].get("parameters") or {}
    index, count = run.shard.split("/")
    return DataSettings(
        root=Path(root) if root else None,
        limit=run.config.get("limit"),
        seed=run.config.get("seed") or 0,
        shard=(int(index), int(count)),
        parameters={key: value for key, value in parameters.items() if key != NAMES_CODE},
    )


def measured_task(run: Run, name: str, data_root: Path | None) -> Task:
    """One of the run's datasets, as much of it as the run was to measure.

    Args:
        data_root: where its files lie; None: where the run had them.

    Raises:
        UserError: it is not at hand, or what is at hand is not what was measured, or its code was named on the command
            line of the run.
    """
    if (run.config["task"].get("parameters") or {}).get(NAMES_CODE):
        raise UserError("its task's code was named on the command line of the run, and a folder's code is never run")
    try:
        task = build_task(name, data_settings(run, data_root))
        found = task.fingerprint
        task.samples()
    except UserError:
        raise
    except Exception as error:  # whatever settings of a stranger's make a task raise
        raise naming("no task can be made of what the folder says", error) from error
    noted = (run.provenance.get("tasks") or {}).get(name, {}).get("fingerprint")
    if noted != found:
        raise UserError(f"the data at hand ({task.source}, {found}) is not what was measured ({noted})")
    return task


def check_scorer(task: Task) -> None:
    """Predictions come from a file: a scorer that may run them as a program is not asked.

    A task of lm-eval may hand a prediction to Python (humaneval, mbpp) or to sympy's parser.

    Raises:
        UserError: the task has such a scorer.
    """
    if task.name.startswith("lm_eval/"):
        raise UserError("it is scored by a function of lm-eval's, which might run a prediction as a program")


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is downloaded inside: the hub's cache is read, the hub is not asked."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
