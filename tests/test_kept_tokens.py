"""Positions of the tokens that go on: the engine's own counts, no text in the file, and what the page draws of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from synthetic_results import made_up_records, write_run
from tiny_requests import byte_tokenizer, tiny_request

from lazybench.contract import Method
from lazybench.kept_tokens import spans, tokens_of_method, watch_tokens
from lazybench.methods.fastkv import FastKV
from lazybench.methods.gemfilter import GemFilter
from lazybench.methods.oracle import Oracle
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.static_pruning import StaticPruning
from lazybench.methods.uniprefill import UniPrefill
from lazybench.models import LoadedModel, ModelSpec
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule
from lazybench.report.__main__ import build
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings
from lazybench.tasks.prompting import halves, tokens_of

SCHEDULE = PruningSchedule(layers=(1, 4), keep=(0.5, 0.5))


def test_positions_are_those_that_the_engine_counts() -> None:
    request = tiny_request(new_tokens=8)
    ids, kwargs = request.prompt_ids, request.generate_kwargs
    kept, tokens = watch_tokens(request.model, SCHEDULE.policy(), ids, **kwargs)
    with LazyLLM(request.model, SCHEDULE) as lazy:
        plain = request.model.generate(ids, **kwargs)  # type: ignore[operator]
    assert torch.equal(plain[0, ids.shape[1] :], tokens)  # who watches changes nothing
    prefill, *steps = lazy.trace.steps
    assert kept.stages == [(0, 1), (2, 4), (5, 7)]
    assert [sum(survived >= stage for survived in kept.survived) for stage in (1, 2, 3)] == list(prefill.selected)
    assert kept.survived[-1] == 3  # the last token asks
    # what a stage attends to for the first time, it must compute
    assert [tuple(map(len, step)) for step in kept.revived] == [step.revived for step in steps]
    assert any(came for step in kept.revived for came in step)
    for stage in (1, 2):
        before = {token for token, survived in enumerate(kept.survived) if survived > stage}
        for step in kept.revived:
            assert not before & set(step[stage])  # none comes back twice
            before |= set(step[stage])


@pytest.mark.parametrize(
    "method",
    [StaticPruning("continue", 0.5, 0.25), FastKV(0.3, 0.2, 0.5, window=4), UniPrefill(0.5, window=8, block=4)],
    ids=lambda method: method.name,
)
def test_a_method_without_revival_brings_nothing_back(method: Method) -> None:
    request = tiny_request()
    kept = tokens_of_method(method, request)
    assert kept is not None
    work = method.run(request).work
    runs = [sum(survived > stage for survived in kept.survived) for stage in range(len(kept.stages))]
    expected = [runs[stage] for stage, (first, last) in enumerate(kept.stages) for _ in range(first, last + 1)]
    assert tuple(expected) == work.tokens_of_layer_runs
    assert not any(came for step in kept.revived for came in step)


def test_a_rerun_keeps_or_drops_for_all_layers_and_others_are_left_out() -> None:
    request = tiny_request()
    kept = tokens_of_method(GemFilter(keep=0.25, depth=0.5), request)
    assert kept is not None
    assert (kept.stages, sum(kept.survived), set(kept.survived)) == ([(0, 7)], 15, {0, 1})
    assert tokens_of_method(Oracle(), request) is None  # its choice hangs on an answer
    assert tokens_of_method(RandomDrop(), request) is None


def byte_model() -> LoadedModel:
    return LoadedModel(ModelSpec("tiny"), tiny_request().model, byte_tokenizer(), 512, str, str, {})


def test_spans_are_the_prompts_own_characters() -> None:
    loaded, text = byte_model(), "Who said: na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve?"
    wrapped = f"<|user|>{text}<|end|>"
    prompt = tokens_of(loaded.tokenizer, wrapped, (range(8, 8 + len(text)),), None)
    found = spans(loaded, prompt, text)
    assert found is not None
    assert len(found) == prompt.ids.shape[1]
    assert found[:8] == [None] * 8
    own = [span for span in found if span is not None]
    assert own == sorted(own)
    assert (own[0][0], own[-1][1]) == (0, len(text))
    assert "".join(text[start:stop] for start, stop in dict.fromkeys(own)) == text  # two bytes are one character


def test_spans_of_a_prompt_without_its_middle_point_at_both_ends() -> None:
    loaded, text = byte_model(), "beginning " + 40 * "middle " + "the end?"
    first, last = halves(loaded.tokenizer, text, 30)
    prompt = tokens_of(loaded.tokenizer, first + last, (range(len(first + last)),), None)
    found = spans(loaded, prompt, text)
    assert found is not None
    assert "".join(text[start:stop] for start, stop in filter(None, found)) == first + last
    assert found[-1] == (len(text) - 1, len(text))


def written(folder: Path, texts: bool, fingerprint: str | None = None) -> list[dict]:
    """What the page's sample browser holds of a run on the needle, made up but for its prompt."""
    records = [record for record in made_up_records(1) if record.task == "qasper" and record.method != "random_drop"]
    records = [
        type(record)(**{**vars(record), "task": "needle", "category": "embedded_needle", "sample_id": "0-0"})
        for record in records
    ]
    task = {"name": "needle", "datasets": ["needle"], "parameters": {"length": 60, "samples": 1}}
    at_hand = build_task("needle", DataSettings(limit=1, parameters={"length": 60, "samples": 1})).fingerprint
    facts = {"tasks": {"needle": {"fingerprint": fingerprint or at_hand, "source": "made up"}}}
    write_run(folder / "run", records, facts, task=task, limit=1)
    line = {
        "task": "needle",
        "sample_id": "0-0",
        "spans": [None, [0, 1], [1, 6]],
        "methods": [
            {
                "method": "lazyllm",
                "variant": "keep=0.5",
                "stages": [[0, 1], [2, 7]],
                "survived": [2, 1, 1],
                "revived": [[[], [2]], [[], [1]]],
            }
        ],
    }
    (folder / "run" / "tokens.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    build([folder], None, ["table1"], texts, None)
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert "drawTokens" in page
    found: list[dict] = json.loads(data[1])
    return found


def test_the_page_draws_tokens_over_the_prompt(tmp_path: Path) -> None:
    (sample,) = written(tmp_path, texts=True)
    assert sample["tokens"]["pieces"] == ["\N{BLACK SMALL SQUARE}", "A", " pass"]
    (method,) = sample["tokens"]["methods"]
    assert method["stages"] == ["layers 1-2", "layers 3-8"]
    assert method["survived"] == [2, 1, 1]
    assert method["back"] == {"1": "step 2, layers 3-8", "2": "step 1, layers 3-8"}


def test_the_page_shows_no_text_of_other_data_than_was_measured(tmp_path: Path) -> None:
    (sample,) = written(tmp_path, texts=True, fingerprint="0" * 64)
    assert sample["text"] is None
    assert set(sample["tokens"]["pieces"]) == {"\N{BLACK SMALL SQUARE}"}


def test_without_texts_the_page_has_squares_in_their_place(tmp_path: Path) -> None:
    (sample,) = written(tmp_path, texts=False)
    assert set(sample["tokens"]["pieces"]) == {"\N{BLACK SMALL SQUARE}"}
    assert sample["text"] is None
