"""The scorer against LongBench's own metrics.py, as lm-eval keeps a copy of it, on generated predictions.

That copy's code similarity passes over blank lines, so the official one is stated here: with loops, sharing no code.
"""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from conftest import python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.tasks.longbench import metrics

from lazybench.errors import UserError
from lazybench.tasks import score
from lazybench.tasks.catalogue import CHINESE, LONGBENCH
from lazybench.tasks.metrics import METRICS

many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = ["the", "a", "an", "Paris", "paris.", "42", "7", "07", "no", "Yes!", "", " ", "The", "a.", "naïve", "x_y", "’s"]
CODE = [
    "x = 1",
    "    return x",
    "# note",
    "// note",
    "`",
    "```python",
    "",
    "   ",
    "y = 2  # two",
    "url = 'http://a'",
    "}",
]
CLASSES = ["Food", "Food item", "Date", "Other entity", "entity", "City", "Individual", "Number"]
HANZI = ["北京", "大学", "，", "。", "学生", " ", "\n", "2023", "“好”", "A", "第三段落"]
LABELS = [f"Paragraph {number}" for number in (1, 2, 7, 17, 30)]


def texts(pieces: list[str], joiner: str = " ") -> st.SearchStrategy[str]:
    """Empty, blank, one or several lines, punctuation, numbers, unicode."""
    built = st.lists(st.sampled_from([*pieces, "\n", "\n\n", "\r"]), max_size=12).map(joiner.join)
    return st.one_of(built, built, st.text(max_size=40))


PREDICTIONS = {
    "qa": texts(WORDS),
    "code": texts(CODE, "\n"),
    "classes": texts(CLASSES),
    "chinese": texts(HANZI, ""),
    "numbers": texts([*LABELS, "段落7", "7", "17", "1 7", "١"]),
}


def first_line(text: str) -> str:
    start = 0
    while start < len(text) and text[start] == "\n":
        start += 1
    end = text.find("\n", start)
    return text[start:] if end < 0 else text[start:end]


def expected_code(prediction: str, answer: str, **_: Any) -> float:
    line = ""
    for candidate in prediction.lstrip("\n").split("\n"):
        if "`" in candidate or "#" in candidate or "//" in candidate:
            continue
        line = candidate
        break
    if not line or not answer:
        return 0.0
    return round(100 * difflib.SequenceMatcher(None, line, answer).ratio()) / 100


PROTOCOL: dict[str, tuple[Any, str, list[str]]] = {  # dataset: (metric, kind of prediction, answers)
    **dict.fromkeys(
        ["narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"],
        (metrics.qa_f1_score, "qa", ["Paris", "the Paris, a 42!", "unanswerable", "No", "naïve x_y"]),
    ),
    "multifieldqa_zh": (metrics.qa_f1_zh_score, "chinese", ["北京大学", "2023，学生。"]),
    **dict.fromkeys(
        ["gov_report", "qmsum", "multi_news", "samsum"], (metrics.rouge_score, "qa", ["the Paris 42 no", "Yes!"])
    ),
    **dict.fromkeys(["dureader", "vcsum"], (metrics.rouge_zh_score, "chinese", ["北京大学学生", "好。"])),
    **dict.fromkeys(["trec", "lsht"], (metrics.classification_score, "classes", ["Food item", "Other entity", "Date"])),
    "passage_count": (metrics.count_score, "numbers", ["7", "17"]),
    "passage_retrieval_en": (metrics.retrieval_score, "numbers", LABELS),
    "passage_retrieval_zh": (metrics.retrieval_zh_score, "numbers", ["段落7", "段落17"]),
    **dict.fromkeys(["lcc", "repobench-p"], (expected_code, "code", ["    return x", "x = 1", "}"])),
}


def test_the_protocol_covers_every_dataset() -> None:
    assert set(PROTOCOL) == {*LONGBENCH, *CHINESE} == set(METRICS) - {"stdlib_retrieval", "needle"}


@pytest.mark.parametrize("dataset", sorted(PROTOCOL))
def test_scores_equal_the_official_behaviour(dataset: str) -> None:
    expected, kind, pool = PROTOCOL[dataset]
    seen = {"zero": 0, "more": 0}

    @many
    @given(PREDICTIONS[kind], st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    def check(prediction: str, answers: list[str]) -> None:
        cut = first_line(prediction) if dataset in ("trec", "triviaqa", "samsum", "lsht") else prediction
        wanted = max(expected(cut, answer, all_classes=CLASSES) for answer in answers)
        got = score(dataset, prediction, answers, CLASSES)
        assert got == pytest.approx(wanted, abs=1e-12)
        assert 0 <= got <= 1
        seen["more" if got else "zero"] += 1

    check()
    assert seen["zero"] > 10
    assert seen["more"] > 10


@pytest.mark.parametrize(
    ("dataset", "prediction", "answers", "wanted"),
    [
        # worked by hand from the official files; the others' are those that the tests above compare with
        ("lcc", "# comment\n\nreturn x", ["return x"], 0.0),  # a blank line without a mark is the line that counts
        ("lcc", "```python\nreturn x\n```", ["return x"], 1.0),
        ("qasper_e", "yes", ["yes"], 1.0),
        ("needle", " 12345.", ["12345"], 1.0),
    ],
)
def test_quirks_worked_by_hand(dataset: str, prediction: str, answers: list[str], wanted: float) -> None:
    assert score(dataset, prediction, answers) == wanted


def test_classification_passes_over_the_entry_after_a_removed_one() -> None:
    # "b" stands right after the removed "a" and is never looked at, so it stays and halves the score
    assert score("trec", "a b c", ["a b c"], ["a", "b", "a b c"]) == 0.5


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="qasper"):
        score("qaspr", "x", ["x"], None)
    with pytest.raises(UserError, match="does not name a paragraph"):
        score("passage_retrieval_en", "7", ["seven"], None)


def test_scorer_and_categories_need_no_lm_eval() -> None:
    program = "import sys; from lazybench.tasks import CATEGORIES, score; print('lm_eval' in sys.modules)"
    assert python("-c", program).stdout == "False\n"
