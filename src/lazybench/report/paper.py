"""The paper's numbers (arXiv 2407.14057v1), as data: tables 1 and 2, and the points its figures name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pandas

TITLE = "LazyLLM: Dynamic Token Pruning for Efficient Long Context LLM Inference (arXiv 2407.14057v1)"
CATEGORY_TITLES = {
    "single_doc_qa": "Single-document QA",
    "multi_doc_qa": "Multi-document QA",
    "summarization": "Summarization",
    "few_shot": "Few-shot learning",
    "synthetic": "Synthetic",
    "code": "Code completion",
}
METHOD_TITLES = {
    "baseline": "Baseline",
    "random_drop": "Random token drop",
    "static_pruning": "Static token pruning",
    "prompt_compression": "Prompt compression",
    "lazyllm": "LazyLLM",
}


@dataclass(frozen=True)
class Anchor:
    """A point that the paper states: at this speedup, no more than this loss."""

    category: str
    ttft_speedup: float
    relative_score_at_least: float  # share of the baseline's score
    source: str


# section 5.2 with figure 5, and figure 1; Llama 2 7B on an A100
ANCHORS = (
    Anchor("multi_doc_qa", 2.34, 0.99, "figure 5: 2.34x at 1% loss or less"),
    Anchor("multi_doc_qa", 3.0, 0.90, "figure 5: 3.0x at 10% loss or less"),
)
TTFT_OVER_DECODE_STEP = 21.0  # figure 1
PREFILL_SHARE_OF_GENERATION = 0.23


def table1() -> pandas.DataFrame:
    """Table 1: category, method, then score (0..100) and TTFT speedup of Llama 2 7B and XGen 7B."""
    return _read("paper_table1.csv")


def table2() -> pandas.DataFrame:
    """Table 2: category, then prompt tokens computed (%) and overall generation speedup of LazyLLM."""
    return _read("paper_table2.csv")


def _read(name: str) -> pandas.DataFrame:
    with files("lazybench.report").joinpath(name).open(encoding="utf-8") as file:
        return pandas.read_csv(file)
