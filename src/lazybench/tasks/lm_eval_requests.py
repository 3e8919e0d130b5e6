"""What lm-eval sends for a task's documents: its own requests, the same in every process, shard and resume."""

from __future__ import annotations

import difflib
import json
import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from typing import Any
from unittest.mock import patch

import evaluate
import numpy
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoTokenizer

from lazybench.errors import UserError, library_errors, unknown_name


def requests_of(task: ConfigurableTask) -> list[Instance]:
    """What lm-eval sends for each document, few-shot examples drawn with its default seed.

    All documents are asked for: the examples of one are drawn after those of all before it.

    Raises:
        UserError: for some document it is not one prompt of text, or the limits differ.
    """
    kinds, requests = [task.OUTPUT_TYPE], list[Instance]()
    if kinds == ["generate_until"]:  # the others may take long to ask
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        requests = list(task.instances)
        kinds = sorted({request.request_type for request in requests})
    limits = [request.args[-1] for request in requests]
    wrong = {
        f"asks for {' and '.join(kinds)}": kinds != ["generate_until"],
        "asks several times for each document": len({request.doc_id for request in requests}) < len(requests),
        "asks with more than a text": any(
            len(request.args) != 2 or not isinstance(request.args[0], str) for request in requests
        ),
        "has other limits for each document": any(limit != limits[0] for limit in limits),
    }
    for why, holds in wrong.items():
        if holds:
            raise UserError(
                f"task=lm_eval/{task.task_name} {why}; only generation tasks of one prompt each can be timed"
            )
    return requests


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
        managers.append(_shipped_tasks(json.dumps(metadata)))
    known = [known for manager in managers for known in manager.all_subtasks]
    if name not in known:
        raise unknown_name("lm-eval task", name, difflib.get_close_matches(name, known, n=8, cutoff=0.4))
    with library_errors(f"lm-eval task {name} cannot be loaded"):
        file = managers[-1].task_index[name].yaml_path
        settings = load_yaml(file, resolve_func=False) if file else {}
        if settings.get("unsafe_code"):  # lm-eval asks for a confirmation of its own
            raise UserError(
                f"task=lm_eval/{name} runs what the model wrote as a program, which no run here does; score it "
                "with lazybench lm-eval --confirm_run_unsafe_code"
            )
        progress = redirect_stderr(StringIO())
        with _lm_evals_seeds(), metrics_of_the_library(), _tokenizers_without_code(), progress:
            try:
                task = managers[-1].load(name)["tasks"][name]
            except AssertionError as error:
                if "tokenizer" not in str(error):  # metadata that RULER's tasks ask for
                    raise
                raise UserError(f"lm-eval task {name}: {error} Here: task.parameters.tokenizer=MODEL") from None
            return task, requests_of(task)


@cache  # reading all of lm-eval's task files takes eight seconds
def _shipped_tasks(metadata: str) -> TaskManager:
    return TaskManager(metadata=json.loads(metadata))


@contextmanager
def _tokenizers_without_code() -> Iterator[None]:
    """No checkpoint's code runs where a task loads the tokenizer that it is told with ``trust_remote_code=True``."""
    own = AutoTokenizer.from_pretrained

    def load(*arguments: Any, **options: Any) -> Any:
        return own(*arguments, **{**options, "trust_remote_code": False})

    with patch.object(AutoTokenizer, "from_pretrained", load):
        yield


@contextmanager
def metrics_of_the_library() -> Iterator[None]:
    """A metric that a task names is never ``NAME/NAME.py`` of the folder that a run was started in."""
    factory = evaluate.loading.LocalEvaluationModuleFactory

    def local(path: str, **options: Any) -> Any:
        if not os.path.isabs(path):
            raise UserError(f"{path} would be run as the task's metric; start in another folder, or rename it")
        return factory(path, **options)

    with patch.object(evaluate.loading, "LocalEvaluationModuleFactory", local):
        yield


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
