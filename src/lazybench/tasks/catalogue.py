"""Every task that needs no parameters: its datasets, how many samples they hold, and what they ask."""

from __future__ import annotations

from lazybench.tasks.categories import CHINESE, EMBEDDED, ENGLISH, EXTENDED, LONGBENCH

# LongBench's own counts (THUDM/LongBench, README)
OTHER_THAN_200 = {"multifieldqa_en": 150, "lcc": 500, "repobench-p": 500}
OTHER_THAN_300 = {"multi_news_e": 294, "multifieldqa_en_e": 150, "qasper_e": 224}
ASKS = {
    "narrativeqa": "questions on whole books and film scripts",
    "qasper": "questions on scientific articles",
    "multifieldqa_en": "questions on articles of many fields",
    "hotpotqa": "two-hop questions over several Wikipedia passages",
    "2wikimqa": "multi-hop questions over several Wikipedia passages",
    "musique": "up to four-hop questions over several Wikipedia passages",
    "gov_report": "one-page summaries of government reports",
    "qmsum": "a query about a meeting transcript",
    "multi_news": "one-page summaries of several news articles",
    "trec": "question types, from many examples",
    "triviaqa": "trivia questions, with examples",
    "samsum": "dialogue summaries, with examples",
    "passage_count": "how many different paragraphs there are",
    "passage_retrieval_en": "which of 30 paragraphs an abstract is from",
    "lcc": "the next line of a source file",
    "repobench-p": "the next line, with files of the same repository",
    "multifieldqa_zh": "Chinese: questions on articles of many fields",
    "dureader": "Chinese: questions over several documents",
    "vcsum": "Chinese: meeting summaries",
    "lsht": "Chinese: news categories, from examples",
    "passage_retrieval_zh": "Chinese: which paragraph an abstract is from",
}
GROUPS: dict[str, tuple[str, ...]] = {
    "longbench": LONGBENCH,
    **ENGLISH,
    "longbench_zh": tuple(CHINESE),
    "longbench_e": EXTENDED,
}
TASKS: dict[str, tuple[str, ...]] = {  # name to datasets
    **GROUPS,
    **{name: (name,) for name in (*LONGBENCH, *CHINESE, *EXTENDED, *EMBEDDED)},
}


def samples_of(dataset: str) -> int:
    """How many samples a LongBench dataset holds."""
    if dataset.endswith("_e"):
        return OTHER_THAN_300.get(dataset, 300)
    return OTHER_THAN_200.get(dataset, 200)


def asks(dataset: str) -> str:
    """What a LongBench dataset asks, in a few words."""
    return ASKS[dataset.removesuffix("_e")]
