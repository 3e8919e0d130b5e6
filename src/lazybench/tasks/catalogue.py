"""Every task by name: its category, what ``task=`` chooses by it, and for LongBench what is asked how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """One of LongBench's datasets."""

    category: str
    asks: str
    samples: int = 200
    extended: int | None = 300  # samples in LongBench-E, spread evenly over three lengths; None: not in it


# categories: LazyLLM section 4 (arXiv 2407.14057), after LongBench's task.md; counts: THUDM/LongBench, README
DATASETS: dict[str, Dataset] = {
    "narrativeqa": Dataset("single_doc_qa", "questions on whole books and film scripts", extended=None),
    "qasper": Dataset("single_doc_qa", "questions on scientific articles", extended=224),
    "multifieldqa_en": Dataset("single_doc_qa", "questions on articles of many fields", 150, 150),
    "hotpotqa": Dataset("multi_doc_qa", "two-hop questions over several Wikipedia passages"),
    "2wikimqa": Dataset("multi_doc_qa", "multi-hop questions over several Wikipedia passages"),
    "musique": Dataset("multi_doc_qa", "up to four-hop questions over several Wikipedia passages", extended=None),
    "gov_report": Dataset("summarization", "one-page summaries of government reports"),
    "qmsum": Dataset("summarization", "a query about a meeting transcript", extended=None),
    "multi_news": Dataset("summarization", "one-page summaries of several news articles", extended=294),
    "trec": Dataset("few_shot", "question types, from many examples"),
    "triviaqa": Dataset("few_shot", "trivia questions, with examples"),
    "samsum": Dataset("few_shot", "dialogue summaries, with examples"),
    "passage_count": Dataset("synthetic", "how many different paragraphs there are"),
    "passage_retrieval_en": Dataset("synthetic", "which of 30 paragraphs an abstract is from"),
    "lcc": Dataset("code", "the next line of a source file", 500),
    "repobench-p": Dataset("code", "the next line, with files of the same repository", 500),
    "multifieldqa_zh": Dataset("single_doc_qa_zh", "Chinese: questions on articles of many fields", extended=None),
    "dureader": Dataset("multi_doc_qa_zh", "Chinese: questions over several documents", extended=None),
    "vcsum": Dataset("summarization_zh", "Chinese: meeting summaries", extended=None),
    "lsht": Dataset("few_shot_zh", "Chinese: news categories, from examples", extended=None),
    "passage_retrieval_zh": Dataset("synthetic_zh", "Chinese: which paragraph an abstract is from", extended=None),
}
CHINESE = tuple(name for name, dataset in DATASETS.items() if dataset.category.endswith("_zh"))
LONGBENCH = tuple(name for name in DATASETS if name not in CHINESE)
EXTENDED = tuple(f"{name}_e" for name, dataset in DATASETS.items() if dataset.extended is not None)
ENGLISH: dict[str, tuple[str, ...]] = {  # category to datasets
    category: tuple(name for name in LONGBENCH if DATASETS[name].category == category)
    for category in dict.fromkeys(DATASETS[name].category for name in LONGBENCH)
}

EMBEDDED = {"stdlib_retrieval": "embedded_retrieval", "needle": "embedded_needle"}

CATEGORIES: dict[str, str] = {  # of every task but lm-eval's own and plain text
    **{name: dataset.category for name, dataset in DATASETS.items()},
    **{name: f"{DATASETS[name.removesuffix('_e')].category}_e" for name in EXTENDED},
    **EMBEDDED,
    "longbench_v2": "longbench_v2",
}

GROUPS: dict[str, tuple[str, ...]] = {
    "longbench": LONGBENCH,
    **ENGLISH,
    "longbench_zh": CHINESE,
    "longbench_e": EXTENDED,
}
TASKS: dict[str, tuple[str, ...]] = {  # what takes no parameters: name to datasets
    **GROUPS,
    **{name: (name,) for name in CATEGORIES},
}


def samples_of(dataset: str) -> int:
    """How many samples a LongBench dataset holds; of LongBench-E where the name ends in ``_e``."""
    if dataset.endswith("_e"):
        return DATASETS[dataset.removesuffix("_e")].extended or 0
    return DATASETS[dataset].samples


def asks(dataset: str) -> str:
    """What a LongBench dataset asks, in a few words."""
    return DATASETS[dataset.removesuffix("_e")].asks
