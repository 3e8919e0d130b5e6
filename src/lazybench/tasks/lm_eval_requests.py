"""What lm-eval sends for a task's documents: its own requests, the same in every process, shard and resume."""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from typing import Any

import numpy
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager

from lazybench.errors import UserError, unknown_name


def requests_of(task: ConfigurableTask) -> list[Instance]:
    """What lm-eval sends for each document, few-shot examples drawn with its default seed.

    All documents are asked for: the examples of one are drawn after those of all before it.

    Raises:
        UserError: for some document it is not one prompt of text, or the limits differ.
    """
    if task.OUTPUT_TYPE != "generate_until":  # some of these take long to ask
        raise _not_timed(task, f"asks for {task.OUTPUT_TYPE}")
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    with redirect_stderr(StringIO()):  # its progress bar
        task.build_all_requests(limit=None, rank=0, world_size=1)
    requests = list(task.instances)
    kinds = sorted({request.request_type for request in requests})
    if kinds != ["generate_until"]:
        raise _not_timed(task, f"asks for {' and '.join(kinds)}")
    if len({request.doc_id for request in requests}) < len(requests):
        raise _not_timed(task, "asks several times for each document")
    if any(len(request.args) != 2 or not isinstance(request.args[0], str) for request in requests):
        raise _not_timed(task, "asks with more than a text")
    if any(request.args[1] != requests[0].args[1] for request in requests):
        raise _not_timed(task, "has other limits for each document")
    return requests


def _not_timed(task: ConfigurableTask, why: str) -> UserError:
    return UserError(f"task=lm_eval/{task.task_name} {why}; only generation tasks of one prompt each can be timed")


def load_task(
    name: str, folder: str | None = None, metadata: dict[str, Any] | None = None
) -> tuple[ConfigurableTask, list[Instance]]:
    """A task by lm-eval's name, and all its requests.

    Args:
        folder: of task files that come before those that lm-eval ships.
        metadata: for the task files' own functions.

    Raises:
        UserError: there is no such task, it cannot be loaded, or ``requests_of`` refuses it.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it reports every default it fills in
    managers = [] if folder is None else [TaskManager(metadata=metadata, include_path=folder, include_defaults=False)]
    if not managers or name not in managers[0].all_subtasks:
        managers.append(_shipped_tasks())
    known = [known for manager in managers for known in manager.all_subtasks]
    if name not in known:
        raise unknown_name("lm-eval task", name, difflib.get_close_matches(name, known, n=8, cutoff=0.4))
    try:
        with _lm_evals_seeds():
            task = managers[-1].load(name)["tasks"][name]
            if task.config.unsafe_code:  # lm-eval asks for a confirmation of its own
                raise UserError(
                    f"task=lm_eval/{name} runs what the model wrote as a program, which no run here does; score it "
                    "with lazybench lm-eval --confirm_run_unsafe_code"
                )
            return task, requests_of(task)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lm-eval task {name} cannot be loaded ({type(error).__name__}: {reason})") from error


@cache  # reading all of lm-eval's task files takes eight seconds
def _shipped_tasks() -> TaskManager:
    return TaskManager()


@contextmanager
def _lm_evals_seeds() -> Iterator[None]:
    """The state that lm-eval's own runs begin with: some tasks shuffle their choices by it."""
    states = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - the state that tasks draw by
    random.seed(DEFAULT_RANDOM_SEED)
    numpy.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])  # noqa: NPY002
