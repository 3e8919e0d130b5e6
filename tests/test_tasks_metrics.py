"""The scorer against an independent statement of LongBench's eval.py and metrics.py, on generated predictions.

The statements below are written from the official files (THUDM/LongBench, commit 2e00731) in another way than the
project's: counted by hand, with loops and indices, sharing no code with lazybench.tasks.
"""

from __future__ import annotations

import difflib
import sys
from typing import Any

import jieba
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazybench.errors import UserError
from lazybench.tasks import CATEGORIES, score
from lazybench.tasks.catalogue import CHINESE, ENGLISH, EXTENDED, LONGBENCH
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
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def first_line(text: str) -> str:
    start = 0
    while start < len(text) and text[start] == "\n":
        start += 1
    end = text.find("\n", start)
    return text[start:] if end < 0 else text[start:end]


def f1(left: list[str], right: list[str]) -> float:
    rest, same = list(right), 0
    for token in left:
        if token in rest:
            rest.remove(token)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(left), same / len(right)
    return 2 * precision * recall / (precision + recall)


def english_tokens(text: str) -> list[str]:
    """Lower case; punctuation deleted; then a, an, the as whole words become blanks; split at white space."""
    kept = ""
    for character in text.lower():
        if character not in PUNCTUATION:
            kept += character
    tokens, word = [], ""
    for character in [*kept, " "]:
        if character.isalnum() or character == "_":
            word += character
        else:
            tokens.append(" " if word in ("a", "an", "the") else word)
            tokens.append(character)
            word = ""
    return "".join(tokens).split()


def expected_qa(prediction: str, answer: str, classes: list[str]) -> float:
    return f1(english_tokens(prediction), english_tokens(answer))


def expected_qa_zh(prediction: str, answer: str, classes: list[str]) -> float:
    dropped = set(PUNCTUATION) | set(
        "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
    )

    def tokens(text: str) -> list[str]:
        found = []
        for word in jieba.cut(text, cut_all=False):
            bare = "".join(c for c in word.lower() if c not in dropped and not c.isspace())
            if bare:
                found.append(bare)
        return found

    return f1(tokens(prediction), tokens(answer))


def expected_rouge(prediction: str, answer: str, classes: list[str]) -> float:
    from rouge import Rouge

    try:
        return Rouge().get_scores([prediction], [answer], avg=True)["rouge-l"]["f"]
    except BaseException:
        return 0.0


def expected_rouge_zh(prediction: str, answer: str, classes: list[str]) -> float:
    return expected_rouge(" ".join(jieba.lcut(prediction)), " ".join(jieba.lcut(answer)), classes)


def expected_classification(prediction: str, answer: str, classes: list[str]) -> float:
    named = [name for name in classes if prediction.find(name) >= 0]
    place = 0  # a for loop over a list that shrinks: the index goes on, the entries move up
    while place < len(named):
        name = named[place]
        if answer.find(name) >= 0 and name != answer:
            del named[named.index(name)]
        place += 1
    return 1 / len(named) if answer in named else 0.0


def numbers_in(text: str) -> list[str]:
    found, number = [], ""
    for character in [*text, " "]:
        if character.isdecimal():
            number += character
        elif number:
            found.append(number)
            number = ""
    return found


def expected_count(prediction: str, answer: str, classes: list[str]) -> float:
    numbers = numbers_in(prediction)
    return sum(number == answer for number in numbers) / len(numbers) if numbers else 0.0


def expected_retrieval(prediction: str, answer: str, classes: list[str]) -> float:
    return expected_count(prediction, numbers_in(answer)[0], classes)


def expected_code(prediction: str, answer: str, classes: list[str]) -> float:
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
        (expected_qa, "qa", ["Paris", "the Paris, a 42!", "unanswerable", "No", "naïve x_y"]),
    ),
    "multifieldqa_zh": (expected_qa_zh, "chinese", ["北京大学", "2023，学生。"]),
    **dict.fromkeys(
        ["gov_report", "qmsum", "multi_news", "samsum"], (expected_rouge, "qa", ["the Paris 42 no", "Yes!"])
    ),
    **dict.fromkeys(["dureader", "vcsum"], (expected_rouge_zh, "chinese", ["北京大学学生", "好。"])),
    **dict.fromkeys(["trec", "lsht"], (expected_classification, "classes", ["Food item", "Other entity", "Date"])),
    "passage_count": (expected_count, "numbers", ["7", "17"]),
    "passage_retrieval_en": (expected_retrieval, "numbers", LABELS),
    "passage_retrieval_zh": (expected_retrieval, "numbers", ["段落7", "段落17"]),
    **dict.fromkeys(["lcc", "repobench-p"], (expected_code, "code", ["    return x", "x = 1", "}"])),
}


def test_the_protocol_covers_every_dataset() -> None:
    assert set(PROTOCOL) == {*LONGBENCH, *CHINESE} == set(METRICS) - {"stdlib_code", "stdlib_retrieval", "needle"}


@pytest.mark.parametrize("dataset", sorted(PROTOCOL))
def test_scores_equal_the_official_behaviour(dataset: str) -> None:
    expected, kind, pool = PROTOCOL[dataset]
    seen = {"zero": 0, "more": 0}

    @many
    @given(PREDICTIONS[kind], st.lists(st.sampled_from(pool), min_size=1, max_size=3))
    def check(prediction: str, answers: list[str]) -> None:
        cut = first_line(prediction) if dataset in ("trec", "triviaqa", "samsum", "lsht") else prediction
        wanted = max(expected(cut, answer, CLASSES) for answer in answers)
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
        # worked by hand from the official files
        ("trec", "\n\nFood item\nDate", ["Food item"], 1.0),  # first line after leading newlines; "Food" removed
        ("trec", "Other entity", ["Other entity"], 1.0),
        ("trec", "Food Food item City", ["Food item"], 0.5),
        ("triviaqa", " Paris\nLondon", ["paris"], 1.0),
        ("lcc", "# comment\n\nreturn x", ["return x"], 0.0),  # a blank line without a mark is the line that counts
        ("lcc", "\n\nreturn x\nmore", ["return x"], 1.0),
        ("lcc", "```python\nreturn x\n```", ["return x"], 1.0),
        ("passage_retrieval_en", "Paragraph 7, not 17", ["Paragraph 7"], 0.5),
        ("passage_count", "07", ["7"], 0.0),  # compared as text
        ("qasper", "", ["unanswerable"], 0.0),
        ("qasper", "The answer: a Yes", ["no", "yes"], 2 / 3),
        ("gov_report", "", ["a summary"], 0.0),  # the package refuses an empty text
        ("gov_report", "...", ["a summary"], 0.0),
        ("qasper_e", "yes", ["yes"], 1.0),
        ("needle", " 12345.", ["12345"], 1.0),
    ],
)
def test_quirks_worked_by_hand(dataset: str, prediction: str, answers: list[str], wanted: float) -> None:
    classes = ["Food", "Food item", "Date", "Other entity", "City"]
    assert score(dataset, prediction, answers, classes) == pytest.approx(wanted)


def test_classification_passes_over_the_entry_after_a_removed_one() -> None:
    # "b" stands right after the removed "a" and is never looked at, so it stays and halves the score
    assert score("trec", "a b c", ["a b c"], ["a", "b", "a b c"]) == 0.5


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="qasper"):
        score("qaspr", "x", ["x"], None)
    with pytest.raises(UserError, match="does not name a paragraph"):
        score("passage_retrieval_en", "7", ["seven"], None)


def test_categories_are_the_papers() -> None:
    assert [len(names) for names in ENGLISH.values()] == [3, 3, 3, 3, 2, 2]
    assert len(LONGBENCH) == 16
    assert len(CHINESE) == 5
    assert len(EXTENDED) == 13
    assert CATEGORIES["qasper_e"] == "single_doc_qa_e"


def test_scorer_and_categories_need_no_lm_eval() -> None:
    import subprocess

    program = "import sys; from lazybench.tasks import CATEGORIES, score; print('lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
