"""Which dataset stands in which category, and how a category's score comes from its datasets'."""

from __future__ import annotations

# LazyLLM section 4 (arXiv 2407.14057), after LongBench's task.md
ENGLISH: dict[str, tuple[str, ...]] = {
    "single_doc_qa": ("narrativeqa", "qasper", "multifieldqa_en"),
    "multi_doc_qa": ("hotpotqa", "2wikimqa", "musique"),
    "summarization": ("gov_report", "qmsum", "multi_news"),
    "few_shot": ("trec", "triviaqa", "samsum"),
    "synthetic": ("passage_count", "passage_retrieval_en"),
    "code": ("lcc", "repobench-p"),
}
CHINESE = {
    "multifieldqa_zh": "single_doc_qa",
    "dureader": "multi_doc_qa",
    "vcsum": "summarization",
    "lsht": "few_shot",
    "passage_retrieval_zh": "synthetic",
}
# LongBench-E: the same tasks on samples spread evenly over three lengths
EXTENDED = tuple(
    f"{dataset}_e"
    for datasets in ENGLISH.values()
    for dataset in datasets
    if dataset not in ("narrativeqa", "musique", "qmsum")
)
EMBEDDED = {
    "stdlib_code": "embedded_code",
    "stdlib_retrieval": "embedded_retrieval",
    "needle": "embedded_needle",
}

RULER = {
    "ruler_retrieval": (
        "ruler_niah_single_1",
        "ruler_niah_single_2",
        "ruler_niah_single_3",
        "ruler_niah_multikey_1",
        "ruler_niah_multikey_2",
        "ruler_niah_multikey_3",
        "ruler_niah_multivalue",
        "ruler_niah_multiquery",
    ),
    "ruler_tracking": ("ruler_vt",),
    "ruler_aggregation": ("ruler_cwe", "ruler_fwe"),
    "ruler_qa": ("ruler_qa_1", "ruler_qa_2"),
}
# what needs a download (essays, SQuAD, HotpotQA), on the Python documentation in its place
RULER_EMBEDDED = {
    "ruler_retrieval_embedded": (
        "ruler_niah_single_2_embedded",
        "ruler_niah_single_3_embedded",
        "ruler_niah_multikey_1_embedded",
        "ruler_niah_multivalue_embedded",
        "ruler_niah_multiquery_embedded",
    ),
    "ruler_qa_embedded": ("ruler_qa_1_embedded", "ruler_qa_2_embedded"),
}
LONGBENCH_V2 = (
    "longbench_v2_single_doc_qa",
    "longbench_v2_multi_doc_qa",
    "longbench_v2_in_context_learning",
    "longbench_v2_dialogue_history",
    "longbench_v2_code_repository",
    "longbench_v2_structured_data",
)

CATEGORIES: dict[str, str] = {  # dataset -> category
    **{dataset: category for category, datasets in ENGLISH.items() for dataset in datasets},
    **{dataset: f"{category}_zh" for dataset, category in CHINESE.items()},
    **{name: f"{category}_e" for name in EXTENDED for category, names in ENGLISH.items() if name[:-2] in names},
    **EMBEDDED,
    **{name: category for category, names in {**RULER, **RULER_EMBEDDED}.items() for name in names},
    **{name: name for name in ("longbench_v2", *LONGBENCH_V2)},
}
LONGBENCH = tuple(dataset for datasets in ENGLISH.values() for dataset in datasets)


def length_bucket(words: int) -> str:
    """LongBench-E's three groups, by a sample's ``length`` field (eval.py, ``scorer_e``)."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"
