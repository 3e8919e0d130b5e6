"""The tasks that need no data set: real text, deterministic by seed, answers where the prompt says."""

from __future__ import annotations

import re

import pytest

from lazybench.errors import UserError
from lazybench.tasks import CATEGORIES, DataSettings, build_task

NAMES = ("stdlib_retrieval", "needle")


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_by_seed_limit_and_shard(name: str) -> None:
    first = list(build_task(name, DataSettings(limit=6)).samples())
    assert len(first) == 6
    assert len({sample.sample_id for sample in first}) == 6
    again = build_task(name, DataSettings(limit=6))
    assert list(again.samples()) == first
    assert list(build_task(name, DataSettings(limit=3)).samples()) == first[:3]
    assert list(build_task(name, DataSettings(limit=6, shard=(1, 2))).samples()) == first[1::2]
    other = build_task(name, DataSettings(limit=6, seed=1))
    assert [sample.sample_id for sample in other.samples()] != [sample.sample_id for sample in first]
    assert [sample.answers for sample in other.samples()] != [sample.answers for sample in first]
    assert [sample.prompt for sample in other.samples()] != [sample.prompt for sample in first]
    assert again.fingerprint == build_task(name, DataSettings(limit=2)).fingerprint == other.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", again.fingerprint)
    assert again.category == CATEGORIES[name]
    assert "embedded_" in again.category
    assert "LongBench" not in again.source
    prompt, context = first[0].prompt, first[0].context
    assert context is not None
    assert len(prompt) - 700 < len(prompt[context.start : context.stop]) < len(prompt)


def test_stdlib_retrieval_removes_the_sentence_it_asks_for() -> None:
    task = build_task("stdlib_retrieval", DataSettings(limit=10))
    for sample in task.samples():
        paragraphs = re.findall(r"^Paragraph (\d+): ", sample.prompt, re.MULTILINE)
        assert paragraphs == [str(number) for number in range(1, 31)]
        query = sample.prompt.split("The following is a sentence.\n\n")[1].split("\n\n")[0]
        assert sample.prompt.count(query) == 1
        assert "Wikipedia" not in sample.prompt
        assert sample.prompt.endswith("The answer is: ")
        assert task.score(f" {sample.answers[0]}.", sample) == 1.0
    answers = {sample.answers for sample in build_task("stdlib_retrieval", DataSettings()).samples()}
    assert len(answers) > 20


@pytest.mark.parametrize("depth", [0, 0.25, 1, None])
def test_needle_stands_at_its_depth(depth: float | None) -> None:
    task = build_task("needle", DataSettings(limit=8, parameters={"length": 1000, "depth": depth, "samples": 8}))
    places = []
    for sample in task.samples():
        (key,) = sample.answers
        text = sample.prompt.split("\n\n", 1)[1].rsplit("\n\nWhat is the pass key?", 1)[0]
        assert sample.prompt.count(key) == 2
        assert 3400 < len(sample.prompt) <= 4000
        lines = text.split("\n")
        needle = next(number for number, line in enumerate(lines) if key in line)
        places.append(needle / (len(lines) - 1))
        assert places[-1] == pytest.approx(sample.details["depth"], abs=0.02)
        assert task.score(f" {key}", sample) == 1.0
        assert task.score("00000", sample) == 0.0
    if depth is None:
        assert max(places) - min(places) > 0.7


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("needle", {"length": 10**12}, r"length=1000000000000 must be at most 1000000"),
        ("needle", {"length": 0}, r"length=0 must be a whole number of at least 50"),
        ("needle", {"depth": 2}, r"depth=2 must be from 0"),
        ("needle", {"samples": "many"}, r"samples='many'"),
        ("stdlib_retrieval", {"paragraphs": 100_000}, r"the documentation has \d+"),
        ("stdlib_retrieval", {"paragraphs": True}, r"paragraphs=true"),
    ],
)
def test_bad_parameters_are_one_line(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_task(name, DataSettings(limit=2, parameters=parameters)).samples()
