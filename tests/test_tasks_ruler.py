"""RULER's prompts fill a length and never exceed it, are the same by their seed, and refuse what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import RunPy
from hypothesis import given, settings
from hypothesis import strategies as st
from ruler_rows import prompts, tiny_model

from lazybench.errors import UserError
from lazybench.tasks import CATEGORIES, DataSettings, build_task
from lazybench.tasks.catalogue import CHOICES
from lazybench.tasks.ruler.hidden import NEEDLES
from lazybench.tasks.ruler.recipe import largest_size

OFFICIAL = CHOICES["ruler"]["datasets"]
OFFLINE = CHOICES["ruler_embedded"]["datasets"]
NEW_TOKENS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}


def test_the_thirteen_tasks_and_their_twins() -> None:
    assert len(OFFICIAL) == len(OFFLINE) == 13
    assert [name.removesuffix("_embedded") for name in OFFLINE] == OFFICIAL
    assert {name.removeprefix("ruler_") for name in OFFICIAL} == {*NEEDLES, "vt", "cwe", "fwe", "qa_1", "qa_2"}
    for name in [*OFFICIAL, *OFFLINE]:
        task = build_task(name, DataSettings())
        assert task.max_new_tokens == NEW_TOKENS[name.split("_")[1]]
        assert task.category == CATEGORIES[name]
        assert task.category.endswith("_embedded") == name.endswith("_embedded")
        assert task.chat_format


@pytest.mark.parametrize("name", OFFLINE)
def test_prompts_fill_the_length_and_keep_what_is_asked(name: str, tiny_checkpoint: Path) -> None:
    model = tiny_model(tiny_checkpoint, wrap=lambda prompt: f"<chat>{prompt}</chat>")
    settled: list[Any] = []
    for length in (2500, 8192):
        data = DataSettings(limit=3, parameters={"length": length})
        task = build_task(name, data)
        for sample in task.samples():
            found = task.encode(model, sample, task.max_new_tokens)
            ids = found.ids
            total = ids.shape[1] + task.max_new_tokens
            unit = 400 if "_qa_" in name else 100  # tokens of one more document, or of anything else
            assert length - unit < total <= length
            text = model.tokenizer.decode(ids[0])
            assert text.startswith("<chat>")
            prompt, prefix = text.removeprefix("<chat>").split("</chat>")
            assert prefix.startswith(" ")
            assert sample.prompt.endswith(prefix)
            if "_qa_" not in name:
                assert all(answer in prompt for answer in sample.answers)
            assert ids.tolist() == build_task(name, data).encode(model, sample, task.max_new_tokens).ids.tolist()
            # the document apart from the instruction, the question and what begins the answer
            assert found.context is not None
            context = model.tokenizer.decode(ids[0][found.context])
            instruction, question = prompt.split(context)
            assert "uestion: " in question or question.strip().startswith("What")
            assert len(context) > 0.6 * len(prompt)
            own = model.tokenizer.decode(ids[0][~found.template])
            assert own.endswith(prefix)
            assert own.startswith(instruction[:20])
            assert "chat>" not in own
        settled.append([(sample.sample_id, sample.answers) for sample in task.samples()])
    if name not in ("ruler_fwe",):  # its vocabulary grows with the length
        assert settled[0] == settled[1]


def test_a_run_measures_them_without_a_network(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    names = ["ruler_niah_multikey_3", "ruler_vt", "ruler_fwe", "ruler_qa_2_embedded"]
    done = run_py(
        "task=ruler_embedded",
        f"task.datasets=[{','.join(names)}]",
        "task.parameters.length=1500",
        "model=custom",
        f"model.path={tiny_checkpoint}",
        "methods=[baseline,lazyllm]",
        "pruning.layers=[1]",
        "pruning.keep=[0.5]",
        "limit=1",
        "max_new_tokens=2",
        "fidelity=false",
        "warmup=0",
        f"out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert {(record["task"], record["method"]) for record in records} == {
        (name, method) for name in names for method in ("baseline", "lazyllm")
    }
    assert all(record["score"] is not None and record["details"]["length"] == 1500 for record in records)
    assert all(record["prompt_tokens"] + NEW_TOKENS[record["task"].split("_")[1]] <= 1500 for record in records)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 300))
@settings(max_examples=200, deadline=None)
def test_the_largest_size_that_fits_is_found(steps: list[int], least: int, room: int) -> None:
    tokens = {least + place: sum(steps[: place + 1]) for place in range(len(steps))}
    wanted = [size for size, count in tokens.items() if count <= room]
    assert largest_size(tokens.__getitem__, least, max(tokens), room) == (max(wanted) if wanted else None)


@pytest.mark.parametrize(
    ("name", "parameters", "window", "message"),
    [
        ("ruler_vt", {"length": 4096}, 4095, r"length=4096 exceeds the window of 4095 tokens of model tiny"),
        ("ruler_vt", {"length": 300}, 4096, r"length=300 is too small for sample 0-0 of ruler_vt, which needs \d+ tok"),
        ("ruler_vt", {"length": 30}, 4096, r"length=30 must be a whole number of at least 31"),
        ("ruler_fwe", {"length": "8k"}, 4096, r"length='8k' must be a whole number"),
        ("ruler_cwe", {"length": 500}, 4096, r"length=500 is too small"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, parameters: dict[str, Any], window: int, message: str, tiny_checkpoint: Path
) -> None:
    with pytest.raises(UserError, match=message):
        prompts(tiny_model(tiny_checkpoint, window), name, parameters=parameters)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("ruler_niah_single_2", "PaulGrahamEssays.json", None, r"has no PaulGrahamEssays\.json"),
        ("ruler_niah_single_2", "PaulGrahamEssays.json", "[1]", r"PaulGrahamEssays\.json is not in its .*TypeError"),
        ("ruler_niah_single_2", "PaulGrahamEssays.json", '{"text": " "}', r"field 'text' is empty"),
        ("ruler_qa_1", "squad.json", None, r"has no squad\.json"),
        (
            "ruler_qa_1",
            "squad.json",
            '{"data": [{"title": "t"}]}',
            r"squad\.json is not in its .*KeyError: 'paragraphs'",
        ),
        ("ruler_qa_1", "squad.json", '{"data": []}', r"squad\.json holds no question that has an answer"),
        ("ruler_qa_2", "hotpotqa.json", "{", r"hotpotqa\.json is not in its benchmark's own JSON format"),
        ("ruler_qa_2", "hotpotqa.json", '[{"question": "q"}]', r"hotpotqa\.json is not .*KeyError: 'answer'"),
    ],
)
def test_files_that_are_missing_or_malformed_are_named(
    name: str, file: str, content: str | None, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        prompts(tiny_model(tiny_checkpoint), name, root=tmp_path)
