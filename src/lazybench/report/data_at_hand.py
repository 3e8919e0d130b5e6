"""The configuration and the data of a run, where they are at hand and still the same; a folder names no code here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lazybench.errors import UserError, library_errors
from lazybench.models.spec import DTYPES
from lazybench.run.config import KEYS, RunConfig, build_config
from lazybench.run.reading import Run
from lazybench.tasks import build_task
from lazybench.tasks.base import Task

NAMES_CODE = "include_path"  # of a task's parameters: a folder whose task files import Python
OLDER = {"fidelity": True, "scoring": True, "timing": True}  # what a run once did not note
HERE = {"out": None, "tag": None, "warmup": 0, "threads": None, "tracker": "none"}
NEVER = {"pruning": {}, "attention_map": False, "plugins": [], "engine": "hf"}


def config_of(run: Run, data_root: Path | None = None, model_path: Path | None = None) -> RunConfig:
    """The run's own configuration, with the precision that it noted, nothing timed to warm up, and nothing that names
    code.

    Args:
        data_root, model_path: where data and weights lie; None: where the run had them.

    Raises:
        UserError: it is none of this package's.
    """
    model, noted = dict(run.config["model"]), run.provenance.get("model") or {}
    if noted.get("dtype") in DTYPES:  # "auto" is another one on another device
        model["dtype"] = noted["dtype"]
    if model_path is not None:
        model["path"] = str(model_path)
    asked = {key: run.config[key] for key in KEYS & run.config.keys()}
    config = build_config({**OLDER, **asked, "model": model, **HERE, **NEVER})
    safe = {key: value for key, value in config.data.parameters.items() if key != NAMES_CODE}
    return replace(config, data=replace(config.data, root=data_root or config.data.root, parameters=safe))


def measured_task(run: Run, name: str, config: RunConfig) -> Task:
    """One of the run's datasets, as much of it as the run was to measure.

    Raises:
        UserError: it is not at hand, or what is at hand is not what was measured, or its code was named on the command
            line of the run.
    """
    if (run.config["task"].get("parameters") or {}).get(NAMES_CODE):
        raise UserError("its task's code was named on the command line of the run, and a folder's code is never run")
    with library_errors("no task can be made of what the folder says"):
        task = build_task(name, config.data)
        found = task.fingerprint
        task.samples()
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
