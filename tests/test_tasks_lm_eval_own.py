"""Task files of one's own: limits, documents, scores and requests of any form, or one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from longbench_rows import tokenizer_of
from test_tasks_lm_eval_requests import SHIPPED, ours

from lazybench.errors import UserError


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
        ("numpy.float32(right) / 2", 0.5),
        ("fractions.Fraction(1, 4)", 0.25),
        ("(right, 'reference')", None),
        ("-1", -1.0),
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


def test_a_failure_of_a_tasks_own_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own_utils.py").write_text("def docs(dataset):\n    assert False, 'no\\n such   rows'\n")
    own_task(tmp_path, ROWS, process_docs="!function own_utils.docs")
    with pytest.raises(UserError, match=r"task own cannot be loaded: AssertionError: no such rows$"):
        ours(tmp_path, "own")


@pytest.mark.slow
def test_rulers_tasks_have_the_length_that_is_asked_for(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lm-eval calls metadata; none of the tokenizer's own code runs."""
    import nltk.data

    (tmp_path / "tokenizers/punkt_tab").mkdir(parents=True)  # else it waits for a download that this task needs not
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    (tmp_path / "own.yaml").write_text(f"task: own\ninclude: {SHIPPED}/ruler/niah_single_1.yaml\n")
    with pytest.raises(UserError, match=r"own: No tokenizer .*\. Here: task\.parameters\.tokenizer=MODEL"):
        ours(tmp_path, "own")
    tokenizer = Path(shutil.copytree(tiny_checkpoint, tmp_path / "tokenizer"))
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": [None, "own_code.Own"]}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    (tokenizer / "own_code.py").write_text("raise SystemExit('it ran')")
    task = ours(tmp_path, "own", {"tokenizer": str(tokenizer), "max_seq_lengths": [500, 4096]})
    samples = task.samples()
    assert (len(samples), task.max_new_tokens) == (1000, 128)
    for sample, length in ((samples[0], 500), (samples[-1], 4096)):
        (answer,) = sample.answers
        assert answer in sample.prompt
        assert length / 2 < len(tokenizer_of(tiny_checkpoint)(sample.prompt).input_ids) <= length - 128
        assert [task.score(text, sample) for text in (f"It is {answer}.", "none")] == [1.0, 0.0]


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
