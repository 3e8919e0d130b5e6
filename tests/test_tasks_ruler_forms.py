"""RULER's forms, settings and scores, stated once more and read back from its prompts."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruler_rows import ARTICLES, ESSAY, HOTPOT, prompts, tiny_model, write_ruler_files

from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.base import Sample
from lazybench.tasks.ruler import hidden, lists

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NUMBER, WORDS = r"[1-9]\d{6}", r"[^\n:]+-[^\n:]+"
# scripts/synthetic.yaml: filling, keys, values, numbers of keys, of values of each, of queries
NEEDLE_SETTINGS = {
    "niah_single_1": ("noise", WORDS, NUMBER, 1, 1, 1),
    "niah_single_2": ("essay", WORDS, NUMBER, 1, 1, 1),
    "niah_single_3": ("essay", WORDS, UUID, 1, 1, 1),
    "niah_multikey_1": ("essay", WORDS, NUMBER, 4, 1, 1),
    "niah_multikey_2": ("needle", WORDS, NUMBER, 1, 1, 1),
    "niah_multikey_3": ("needle", UUID, UUID, 1, 1, 1),
    "niah_multivalue": ("essay", WORDS, NUMBER, 1, 4, 1),
    "niah_multiquery": ("essay", WORDS, NUMBER, 4, 1, 4),
}


@pytest.mark.parametrize("kind", NEEDLE_SETTINGS)
def test_needles_stand_in_their_filling(kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    filling, key_form, value_form, num_keys, num_values, num_queries = NEEDLE_SETTINGS[kind]
    model, noun = tiny_model(tiny_checkpoint), "numbers" if value_form == NUMBER else "uuids"
    data = {"root": write_ruler_files(tmp_path), "parameters": {"length": 2000}}
    for text, answers, sample in prompts(model, f"ruler_{kind}", 4, **data):
        head, context_and_question = text.split("\n", 1)
        context, question = context_and_question.rsplit("\n", 1)
        if num_values * num_queries == 1:  # reworded for one value
            assert head.startswith(f"A special magic {noun[:-1]} is hidden within")
            form = f"What is the special magic {noun[:-1]} for (.*) mentioned in the provided text\\? The special .* is"
        else:
            assert head.startswith(f"Some special magic {noun} are hidden within")
            form = (
                f"What are all the special magic {noun} for (.*) mentioned in the provided text\\? The special .* are"
            )
        asked = re.split(r", and |, ", re.fullmatch(form, question)[1])
        needle = re.compile(rf"One of the special magic {noun} for ({key_form}) is: ({value_form})\.")
        hidden = needle.findall(context)
        assert len(asked) == num_queries
        assert sorted(answers) == sorted(value for found, value in hidden if found in asked)
        assert len(answers) == num_values * num_queries
        if filling == "needle":
            assert all(needle.fullmatch(line) for line in context.split("\n"))
        else:
            assert len(hidden) == num_keys * num_values
            assert len({key for key, _ in hidden}) == num_keys
        if filling == "noise":
            assert Counter(context.split("\n"))[NOISE] == len(context.split("\n")) - 1
        if filling == "essay":
            words = needle.sub("", context).split()
            assert words == (ESSAY.split() * 10)[: len(words)]
        if len(answers) == 1:
            place = context.index(answers[0]) / len(context)
            assert place == pytest.approx(sample.details["depth"], abs=0.1)


def test_variables_are_tracked_through_a_chain(tiny_checkpoint: Path) -> None:
    for text, answers, _ in prompts(tiny_model(tiny_checkpoint), "ruler_vt", 4, parameters={"length": 2500}):
        _, solved, question = text.split("Memorize and track")
        variables = []
        for part, letters in ((solved.strip(), 3), (question, 5)):
            context, asked = part.split("\n\n", 1)[1].rsplit("\nQuestion: ", 1)
            pairs = re.findall(r"^VAR ([A-Z]+) = (?:VAR )?(\w+) ?$", context, re.MULTILINE)
            assert set(re.sub(r"^VAR .*$", NOISE, context, flags=re.MULTILINE).split("\n")) == {NOISE}
            value = pairs[0][1]
            assert [source for _, source in pairs] == [value, *(name for name, _ in pairs[:-1])]
            assert 10_000 <= int(value) < 99_999
            assert {len(name) for name, _ in pairs} == {letters}
            assert asked.count(f" the value {value}") == 2
            assert "5 variables are assigned" in asked
            variables.append([name for name, _ in pairs])
        assert solved.strip().endswith(f"they are:  {' '.join(variables[0])}")
        assert question.endswith("they are: ")
        assert tuple(variables[1]) == answers
        assert len(answers) == 5


@pytest.mark.parametrize(("length", "example", "asked"), [(2000, (3, 1), (6, 1)), (8192, (10, 3), (30, 3))])
def test_common_words_are_more_common(
    length: int, example: tuple[int, int], asked: tuple[int, int], tiny_checkpoint: Path
) -> None:
    for text, answers, _ in prompts(tiny_model(tiny_checkpoint), "ruler_cwe", parameters={"length": length}):
        lists = re.findall(r"^(1\. .*)$", text, re.MULTILINE)
        solution = re.search(r"in the list are: (1\. .*)\n", text)[1]
        top = [entry.split(". ", 1)[1] for entry in re.split(r" (?=\d+\. )", solution)]
        for part, repeats, common in zip(lists, (example, asked), (top, answers), strict=True):
            entries = [entry.split(". ", 1) for entry in re.split(r" (?=\d+\. )", part)]
            assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
            counts = Counter(word for _, word in entries)
            assert {counts.pop(word) for word in common} == {repeats[0]}
            assert len(common) == 10
            assert set(counts.values()) == {repeats[1]}


def test_frequent_words_follow_the_zeta_distribution(tiny_checkpoint: Path) -> None:
    for text, answers, _ in prompts(tiny_model(tiny_checkpoint), "ruler_fwe", parameters={"length": 4096}):
        coded = text.rsplit("\nQuestion: ", 1)[0].partition("appeared coded words. ")[2]
        counts = Counter(coded.split(" ")).most_common()
        assert counts[0][0] == "..."
        assert tuple(word for word, _ in counts[1:4]) == answers
        assert len({count for _, count in counts[:5]}) == 5
        for rank, (_, count) in enumerate(counts[:4], start=1):
            assert count / counts[0][1] == pytest.approx(rank**-2, rel=0.1)
        assert all(re.fullmatch("[a-z]{6}", word) for word, _ in counts[1:])
        assert len(counts) <= (4096 - 50) // 50


@pytest.mark.parametrize("name", ["ruler_qa_1", "ruler_qa_2"])
def test_a_questions_own_documents_stand_among_others(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    if name == "ruler_qa_1":
        documents = {place["context"]: article["title"] for article in ARTICLES for place in article["paragraphs"]}
        expected = [
            (entry["question"], tuple(answer["text"] for answer in entry["answers"]), [place["context"]])
            for article in ARTICLES
            for place in article["paragraphs"]
            for entry in place["qas"][:1]
        ]
    else:
        given = [[f"{title}\n{''.join(lines)}" for title, lines in row["context"]] for row in HOTPOT]
        documents = dict.fromkeys((document for own in given for document in own), "")
        expected = [(row["question"], (row["answer"],), own) for row, own in zip(HOTPOT, given, strict=True)]
    data = {"root": write_ruler_files(tmp_path), "parameters": {"length": 360}}
    found = prompts(tiny_model(tiny_checkpoint), name, 50, **data)
    assert len(found) == len(expected)
    orders = set()
    for (text, answers, _), (query, wanted, own) in zip(found, expected, strict=True):
        assert answers == wanted
        assert text.endswith(f"\n\nQuestion: {query} Answer:")
        context = text.split("\n\nThe following are given documents.\n\n")[1].rsplit("\n\n", 2)[0]
        parts = re.split(r"(?:^|\n\n)Document (\d+):\n", context)
        assert [int(number) for number in parts[1::2]] == list(range(1, len(parts) // 2 + 1))
        shown = parts[2::2]
        assert set(own) < set(shown) <= set(documents)
        orders.add(shown.index(own[0]))
        if name == "ruler_qa_1":  # others of the same article come first
            same = [document for document in shown if documents[document] == documents[own[0]]]
            assert len(same) == min(len(shown), 4)
    assert len(orders) > 1


def test_clozes_are_answered_by_their_documents(tiny_checkpoint: Path) -> None:
    for name, blanks in (("ruler_qa_1_embedded", 1), ("ruler_qa_2_embedded", 2)):
        for text, (answer,), _ in prompts(tiny_model(tiny_checkpoint), name, 10, parameters={"length": 3000}):
            documents, query = text.rsplit("\n\nQuestion: ", 1)
            sentences = re.findall(r"'((?:[^']|'(?! and '|\?))*____.*?)'(?= and '|\? Answer:)", query)
            assert query.count("____") == blanks
            assert len(sentences) == blanks
            assert answer not in query
            for sentence in sentences:
                assert documents.count(sentence.replace("____", answer)) >= 1


def installed(module: str) -> dict[str, Any]:
    """The constants of one of lm-eval's RULER files, read without running its downloads."""
    path = Path(next(iter(find_spec("lm_eval").submodule_search_locations))) / "tasks/ruler" / module  # type: ignore[union-attr, arg-type]
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_the_templates_are_those_that_lm_eval_ships() -> None:
    assert installed("niah_utils.py")["TEMPLATE"] == hidden.TEMPLATE
    assert installed("prepare_niah.py")["NEEDLE"] == hidden.NEEDLE
    common, frequent = (installed(f"{name}_utils.py")["CONFIG"] for name in ("cwe", "fwe"))
    assert common["template"] == lists.COMMON_WORDS_TEMPLATE
    assert common["answer_prefix"] == lists.COMMON_WORDS_PREFIX
    assert frequent["template"] == lists.FREQUENT_WORDS_TEMPLATE
    assert frequent["answer_prefix"] == lists.FREQUENT_WORDS_PREFIX
    assert installed("qa_utils.py")["CONFIG"]["template"] == lists.QUESTION_TEMPLATE
    chain = installed("vt_utils.py")["CONFIG"]["variable_tracking"]
    assert chain["template"] == hidden.VARIABLES_TEMPLATE
    assert chain["answer_prefix"].replace("assgined", "assigned") == hidden.VARIABLES_PREFIX  # RULER has mended it


@given(st.text(alphabet="abAB1 \n\x07", max_size=12), st.lists(st.text("abA1", min_size=1, max_size=2), min_size=1))
@settings(max_examples=200, deadline=None)
def test_scores_are_the_official_ones(prediction: str, references: list[str]) -> None:
    """scripts/eval/synthetic/constants.py and the postprocessing of evaluate.py, for one sample."""
    sample = Sample("0-0", "", tuple(references))
    clean = re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip()
    hits = [1.0 if reference.lower() in clean.lower() else 0.0 for reference in references]
    assert build_task("ruler_vt", DataSettings()).score(prediction, sample) == sum(hits) / len(hits)
    assert build_task("ruler_qa_1", DataSettings()).score(prediction, sample) == max(hits)
