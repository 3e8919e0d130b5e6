"""The paper's numbers (arXiv 2407.14057v1), as data: tables 1 and 2, and the points its figures name."""

from __future__ import annotations

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
# section 5.2 with figure 5, and figure 1; Llama 2 7B on an A100
# category to TTFT speedups and the share of the baseline's score that is kept there at least
ANCHORS = {"multi_doc_qa": ((2.34, 0.99), (3.0, 0.90))}
# prefill in percent of the generation; steps: TTFT over a decoding step
FIGURE_1 = {"prompt_tokens": 3376, "output_tokens": 68, "prefill": 23, "steps": 21}


def read(name: str) -> pandas.DataFrame:
    """``table1``: category, method, score (0..100) and TTFT speedup of Llama 2 7B and XGen 7B; ``table2``: category,
    prompt tokens computed (%) and overall generation speedup of LazyLLM.
    """
    with files("lazybench.report").joinpath(f"paper_{name}.csv").open(encoding="utf-8") as file:
        return pandas.read_csv(file)
