"""What lm-eval would send is what is sent: its own requests for tasks that it ships, and for odd ones made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from conftest import python
from lm_eval.models.utils import normalize_gen_kwargs

from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.lm_eval_task import LmEvalTask

SHIPPED = Path(lm_eval.tasks.__file__).parent
COUNT = 7


def _gpqa(number: int) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {place}": f"no {place} {number}" for place in (1, 2, 3)}
    return {"Question": f"Which {number}?", "Correct Answer": f"yes {number}", **wrong}


def _drop(number: int) -> dict[str, Any]:
    date = {"day": "", "month": "", "year": ""}
    one = {"number": str(number), "date": date, "spans": [], "worker_id": "", "hit_id": ""}
    many = {name: [value] for name, value in one.items()}
    rest = {"passage": f"There were {number} ships.", "question": "How many?", "section_id": "s", "query_id": "same"}
    return {**rest, "answer": one, "validated_answers": many}


# file below lm_eval/tasks: a row of its schema, by number, and an answer that scores
TASKS: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[int], str]]] = {
    "gsm8k/gsm8k": (
        lambda n: {"question": f"{n} and {n}?", "answer": f"Sum. #### {2 * n}"},
        lambda n: f" #### {2 * n}\nQuestion: x",
    ),
    "triviaqa/default": (
        lambda n: {"question": f"who {n}", "answer": {"aliases": [f"x{n}", f"y{n}"]}},
        lambda n: f" Y{n}\nmore",
    ),
    "drop/default": (_drop, lambda n: f"{n}. And"),
    "gpqa/generative/gpqa_main_generative_n_shot": (_gpqa, lambda n: "The answer is (A)."),
    "super_glue/boolq/t5-prompt": (
        lambda n: {"passage": f"P {n}", "question": "true", "label": n % 2},
        lambda n: ("False", "True")[n % 2],
    ),
}

INFINITE = {"context": "the {context}", "options": []}
TASKS |= {
    "infinitebench/infinitebench_kv_retrieval": (
        lambda n: {**INFINITE, "id": n, "input": "the input", "answer": [f"gold{n}"]},
        lambda n: f' "gold{n}".\nmore',
    ),
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with each task file as shipped, but for where its rows are; and lm-eval's names of the tasks."""
    folder = tmp_path_factory.mktemp("shipped")
    names = {}
    for place, (file, (row, _)) in enumerate(TASKS.items()):
        path = SHIPPED / f"{file}.yaml"
        names[file] = next(
            line.split(":")[1].strip().strip('"') for line in path.read_text().splitlines() if line.startswith("task:")
        )
        splits = {}
        for split in ("train", "validation", "valid", "test", "kv_retrieval"):
            rows = folder / f"{place}_{split}.jsonl"
            first = 100 if split == "train" else 0
            rows.write_text("".join(json.dumps(row(first + number)) + "\n" for number in range(COUNT)))
            splits[split] = str(rows)
        changed = {"include": str(path), "task": names[file], "dataset_path": "json", "dataset_name": None}
        (folder / f"{place}.yaml").write_text(json.dumps({**changed, "dataset_kwargs": {"data_files": splits}}))
    return folder, names


def lm_evals_own(folder: Path, name: str) -> Any:
    """The task as lm-eval itself prepares it: seeds, then the task, then its requests."""
    import random

    import numpy
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    random.seed(0)
    numpy.random.seed(1234)  # noqa: NPY002
    task = manager.load(name)["tasks"][name]
    task.set_fewshot_seed(1234)
    with redirect_stderr(StringIO()):
        task.build_all_requests(limit=None, rank=0, world_size=1)
    return task


def ours(folder: Path, name: str, parameters: Mapping[str, Any] = {}, **settings: Any) -> LmEvalTask:
    given = {"include_path": str(folder), **parameters}
    task = build_task(f"lm_eval/{name}", DataSettings(parameters=given, **settings))
    assert isinstance(task, LmEvalTask)
    return task


@pytest.mark.parametrize("file", TASKS)
def test_a_shipped_tasks_requests_and_scores_are_lm_evals(file: str, shipped: tuple[Path, dict[str, str]]) -> None:
    folder, names = shipped
    task, official = ours(folder, names[file]), lm_evals_own(folder, names[file])
    samples = task.samples()
    assert [sample.prompt for sample in samples] == [request.args[0] for request in official.instances]
    limits = normalize_gen_kwargs(official.instances[0].args[1])
    assert (task.max_new_tokens, list(task.stop_strings)) == (limits["max_gen_toks"], limits["until"])
    part = ours(folder, names[file], limit=5, shard=(1, 2))  # a job of a cluster
    assert [(s.sample_id, s.prompt) for s in part.samples()] == [(s.sample_id, s.prompt) for s in samples[1:5:2]]
    assert part.fingerprint == task.fingerprint
    # the score of lm-eval's own filters and metrics for these answers
    answer = TASKS[file][1]
    for place, request in enumerate(official.instances):
        text = answer(place)
        for stop in limits["until"]:
            text = text.split(stop)[0]
        request.resps = [text]
    official.apply_filters()
    metric = official.config.metric_list[0]["metric"]
    scores = []
    for place, (sample, request) in enumerate(zip(samples, official.instances, strict=True)):
        expected = official.process_results(request.doc, [next(iter(request.filtered_resps.values()))])[metric]
        scores.append(task.score(answer(place), sample))
        assert scores[-1] == float(expected)
    assert max(scores) == 1.0


def test_another_process_sends_the_same(shipped: tuple[Path, dict[str, str]]) -> None:
    """Drawn examples, and choices that a task shuffles as it loads."""
    folder, names = shipped
    program = (
        "import sys; from lazybench.tasks import *\n"
        "settings = DataSettings(parameters={'include_path': sys.argv[1]})\n"
        "print([build_task(f'lm_eval/{name}', settings).fingerprint for name in sys.argv[2:]])"
    )
    done = python("-c", program, str(folder), *names.values())
    assert done.stdout.strip() == str([ours(folder, name).fingerprint for name in names.values()]), done.stderr
