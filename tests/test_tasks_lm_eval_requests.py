"""What lm-eval would send is what is sent: its own requests for tasks that it ships, and for odd ones made here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from conftest import run_environment
from lm_eval.models.utils import normalize_gen_kwargs

from lazybench.errors import UserError
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.lm_eval_task import LmEvalTask

SHIPPED = Path(lm_eval.tasks.__file__).parent
COUNT = 7


def _choices(number: int) -> dict[str, Any]:
    return {"text": [f"{letter}{number}" for letter in "abcd"], "label": list("ABCD")}


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
    "bbh/cot_fewshot/boolean_expressions": (
        lambda n: {"input": f"not {n} is", "target": "True"},
        lambda n: "so the answer is True.",
    ),
    "asdiv/asdiv-cot-llama": (
        lambda n: {"body": f"He has {n}.", "question": "How many?", "answer": f"{n} (apples)"},
        lambda n: f"The final answer is {n}",
    ),
    "nq_open/nq_open": (lambda n: {"question": f"who {n}", "answer": [f"x{n}", f"y{n}"]}, lambda n: f" the x{n}. More"),
    "triviaqa/default": (
        lambda n: {"question": f"who {n}", "answer": {"aliases": [f"x{n}", f"y{n}"]}},
        lambda n: f" Y{n}\nmore",
    ),
    "drop/default": (_drop, lambda n: f"{n}. And"),
    "unscramble/anagrams1": (lambda n: {"context": f"sort {n}", "completion": f"word{n}"}, lambda n: f"word{n}\nx"),
    "mgsm/direct/mgsm_direct_en": (
        lambda n: {"question": f"What {n}?", "answer": None, "answer_number": 10 + n},
        lambda n: f" {10 + n}\n\nQuestion:",
    ),
    "gpqa/generative/gpqa_main_generative_n_shot": (_gpqa, lambda n: "The answer is (A)."),
    "babi/babi": (
        lambda n: {"passage": f"He went to room {n}.\n", "question": "Where?", "answer": f"room{n}"},
        lambda n: f" room{n}\nPassage:",
    ),
    "arc/arc_challenge_chat": (
        lambda n: {"question": f"Which {n}?", "choices": _choices(n), "answerKey": "ABCD"[n % 4]},
        lambda n: " " + "ABCD"[n % 4],
    ),
    "super_glue/boolq/t5-prompt": (
        lambda n: {"passage": f"P {n}", "question": "true", "label": n % 2},
        lambda n: ("False", "True")[n % 2],
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
        for split in ("train", "validation", "valid", "test"):
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


def ours(folder: Path, name: str, **settings: Any) -> LmEvalTask:
    task = build_task(f"lm_eval/{name}", DataSettings(parameters={"include_path": str(folder)}, **settings))
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
    command = [sys.executable, "-c", program, str(folder), *names.values()]
    done = subprocess.run(command, capture_output=True, text=True, env=run_environment())
    assert done.stdout.strip() == str([ours(folder, name).fingerprint for name in names.values()]), done.stderr


def own_task(folder: Path, rows: list[dict[str, Any]], name: str = "own", **changed: Any) -> Path:
    """A task file of one's own over ``rows``."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        **changed,
    }
    functions = {key: config.pop(key) for key in list(config) if str(config[key]).startswith("!")}
    lines = [json.dumps(config)[1:-1], *(f"{json.dumps(key)}: {value}" for key, value in functions.items())]
    (folder / f"{name}.yaml").write_text("{" + ", ".join(line for line in lines) + "}")
    return folder


ROWS = [{"q": f"Say {word}", "a": word} for word in ("one", "two", "three")]


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_a_limit_holds_under_every_name(name: str, tmp_path: Path) -> None:
    task = ours(own_task(tmp_path, ROWS, generation_kwargs={"until": ["", "\n"], name: 5}), "own")
    assert (task.max_new_tokens, task.stop_strings) == (5, ("\n",))  # an empty text stops nothing
    assert [task.score(sample.answers[0], sample) for sample in task.samples()] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("added", "ids"),
    [
        ([{"_id": "x"}, {"_id": "y"}, {"_id": "z"}], ["x", "y", "z"]),
        ([{"_id": "x"}, {"_id": "x"}, {"_id": "z"}], ["0", "1", "2"]),
        ([{"_id": None}, {"_id": "x"}, {"_id": "z"}], ["0", "1", "2"]),
        ([{"dataset": "mine", "length": 5, "context": "c"}] * 3, ["0", "1", "2"]),
    ],
    ids=["unique", "double", "missing", "fields of LongBench"],
)
def test_documents_go_by_their_place_where_ids_are_not_their_own(
    added: list[dict[str, Any]], ids: list[str], tmp_path: Path
) -> None:
    rows = [{**row, **more} for row, more in zip(ROWS, added, strict=True)]
    own_task(tmp_path, rows)
    samples = ours(tmp_path, "own").samples()
    assert [sample.sample_id for sample in samples] == ids
    assert [(sample.prompt, sample.answers) for sample in samples] == [(row["q"], (row["a"],)) for row in ROWS]
    assert [ours(tmp_path, "own").score(sample.answers[0], sample) for sample in samples] == [1.0, 1.0, 1.0]
    assert [sample.sample_id for sample in ours(tmp_path, "own", limit=2).samples()] == ids[:2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("right", 1.0),  # a bool, as ifeval gives
        ("int(right)", 1.0),
        ("numpy.int64(right)", 1.0),
        ("numpy.float32(right) / 2", 0.5),
        ("numpy.bool_(right)", 1.0),
        ("fractions.Fraction(1, 4)", 0.25),
        ("(right, 'reference')", None),
        ("[right]", None),
        ("'0.5'", None),
        ("None", None),
    ],
)
def test_every_number_is_a_score_and_nothing_else(value: str, expected: float | None, tmp_path: Path) -> None:
    (tmp_path / "own_utils.py").write_text(
        "import fractions, numpy\ndef results(doc, results):\n    right = doc['a'] in results[0]\n"
        f"    return {{'also': -1, 'right': {value}}}\n"
    )
    metrics = [{"metric": "right", "aggregation": "mean", "higher_is_better": True}]
    own_task(tmp_path, ROWS, metric_list=metrics, process_results="!function own_utils.results")
    task = ours(tmp_path, "own")
    sample = task.samples()[0]
    if expected is not None:
        assert task.score("one", sample) == expected
        return
    with pytest.raises(UserError, match="scores a whole corpus, not a sample"):
        task.score("one", sample)


REQUESTS = """
from copy import deepcopy
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

class Own(ConfigurableTask):
    def __init__(self, config=None, **kwargs):
        super().__init__(config={{key: value for key, value in config.items() if key != "class"}})

    def construct_requests(self, doc, ctx, chat_template=None, apply_chat_template=False, **kwargs):
        def ask(kind="generate_until", context=ctx, **limits):
            return Instance(kind, doc, (context, {{"until": [], **limits}}), 0, **kwargs)
        return {}
"""


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ("[ask(max_gen_toks=48)]", None),
        ("[ask(), ask('loglikelihood')]", "asks for generate_until and loglikelihood"),
        ("[ask(), ask()]", "asks several times for each document"),
        ("[ask(context=[ctx, ctx])]", "asks with more than a text"),
        ("[ask(max_gen_toks=len(ctx))]", "has other limits for each document"),
    ],
)
def test_a_class_of_its_own_sends_its_own_request(asked: str, refused: str | None, tmp_path: Path) -> None:
    (tmp_path / "own_class.py").write_text(REQUESTS.format(asked))
    own_task(tmp_path, ROWS, **{"class": "!function own_class.Own"})
    if refused is None:
        assert ours(tmp_path, "own").max_new_tokens == 48
        return
    with pytest.raises(UserError, match=f"task=lm_eval/own {refused}"):
        ours(tmp_path, "own")


@pytest.mark.parametrize(
    "changed",
    [
        {"doc_to_text": "{{q}} {{'!' if loop is defined else ''}}"},
        {"doc_to_target": "{{a}}.", "rows": [{**row, "a": f"{row['a']}!"} for row in ROWS]},
        {"gen_prefix": "It is"},
        {"generation_kwargs": {"until": ["."]}},
        {"generation_kwargs": {"until": [], "max_gen_toks": 3}},
        {"fewshot_split": "test", "num_fewshot": 1},
    ],
    ids=["prompt", "answers", "prefix", "stops", "limit", "examples"],
)
def test_the_fingerprint_covers_what_is_sent_and_what_it_is_scored_by(changed: dict[str, Any], tmp_path: Path) -> None:
    limits = {"generation_kwargs": {"until": []}}
    own_task(tmp_path, ROWS, "before", **limits)
    own_task(tmp_path, changed.pop("rows", ROWS), "after", **{**limits, **changed})
    assert ours(tmp_path, "before").fingerprint != ours(tmp_path, "after").fingerprint
    own_task(tmp_path, ROWS, "again", **limits)
    assert ours(tmp_path, "before").fingerprint == ours(tmp_path, "again").fingerprint
