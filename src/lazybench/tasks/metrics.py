"""LongBench's metrics with their quirks: a score here equals what the official eval.py gives, point for point.

Source: THUDM/LongBench, commit 2e00731, metrics.py and eval.py. The packages are the official ones (rouge,
jieba, fuzzywuzzy without python-Levenshtein), because their details are part of the score.
"""

from __future__ import annotations

import logging
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

from lazybench.errors import SampleError, unknown_name

CHINESE_PUNCTUATION = (  # the official set
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟"
    "｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
FIRST_LINE_TASKS = ("trec", "triviaqa", "samsum", "lsht")  # eval.py keeps the first line of the prediction

Metric = Callable[[str, str, Sequence[str]], float]


def score(task: str, prediction: str, answers: Sequence[str], all_classes: Sequence[str] | None = None) -> float:
    """The official score of one prediction: the best over its answers, 0..1.

    Args:
        task: a LongBench dataset ("qasper", "qasper_e") or an embedded task in the form of one.
        prediction: the decoded generation, raw (XGen's own post-processing applied by the model).
        all_classes: the class names, for trec and lsht.

    Raises:
        UserError: unknown task, or an answer that its metric cannot read.
    """
    dataset = task.removesuffix("_e")
    if dataset not in METRICS:
        raise unknown_name("task", task, METRICS)
    if dataset in FIRST_LINE_TASKS:
        prediction = prediction.lstrip("\n").split("\n")[0]
    return max((METRICS[dataset](prediction, answer, all_classes or ()) for answer in answers), default=0.0)


def qa_f1(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    return _token_f1(_normalized(prediction).split(), _normalized(answer).split())


def qa_f1_zh(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    def tokens(text: str) -> list[str]:
        return [token for token in map(_normalized_zh, _cut_words(text)) if token]

    return _token_f1(tokens(prediction), tokens(answer))


def rouge_l(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    from rouge import Rouge

    try:
        scores = Rouge().get_scores([prediction], [answer], avg=True)
    except Exception:  # official: whatever the package refuses (an empty text, endless recursion) scores 0
        return 0.0
    return float(scores["rouge-l"]["f"])


def rouge_l_zh(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    return rouge_l(" ".join(_cut_words(prediction)), " ".join(_cut_words(answer)))


def classification(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    """One over the number of classes named, if the right one is among them."""
    named = [name for name in all_classes if name in prediction]
    # official: removes from the list while iterating over it, which passes over the entry after each removed one
    for name in named:
        if name in answer and name != answer:
            named.remove(name)
    return 1.0 / len(named) if answer in named else 0.0


def count(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    """The share of the numbers in the prediction that are the answer."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(answer) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    return count(prediction, _paragraph_number(r"Paragraph (\d+)", answer))


def retrieval_zh(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    return count(prediction, _paragraph_number(r"段落(\d+)", answer))


def code_similarity(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    """Edit similarity of the first line without a backtick, ``#`` or ``//``; that line may be blank."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fuzzywuzzy recommends python-Levenshtein, which would change the scores
        from fuzzywuzzy import fuzz

    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return float(fuzz.ratio(line, answer)) / 100


def contains(prediction: str, answer: str, all_classes: Sequence[str] = ()) -> float:
    return float(answer in prediction)


METRICS: dict[str, Metric] = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"), qa_f1),
    "multifieldqa_zh": qa_f1_zh,
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), rouge_l),
    **dict.fromkeys(("dureader", "vcsum"), rouge_l_zh),
    **dict.fromkeys(("trec", "lsht"), classification),
    "passage_count": count,
    "passage_retrieval_en": retrieval,
    "passage_retrieval_zh": retrieval_zh,
    **dict.fromkeys(("lcc", "repobench-p"), code_similarity),
    # not LongBench
    "stdlib_retrieval": retrieval,
    "needle": contains,
}


def _token_f1(prediction: list[str], answer: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(answer)).values())
    if common == 0:
        return 0.0
    precision = common / len(prediction)
    recall = common / len(answer)
    return 2 * precision * recall / (precision + recall)


def _normalized(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _normalized_zh(text: str) -> str:
    dropped = string.punctuation + CHINESE_PUNCTUATION
    return "".join("".join(character for character in text.lower() if character not in dropped).split())


def _cut_words(text: str) -> list[str]:
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it reports on standard error that it loads its dictionary
    return list(jieba.cut(text, cut_all=False))


def _paragraph_number(pattern: str, answer: str) -> str:
    match = re.search(pattern, answer)
    if match is None:
        raise SampleError(f"answer {answer!r} does not name a paragraph; expected the form {pattern!r}")
    return match[1]
