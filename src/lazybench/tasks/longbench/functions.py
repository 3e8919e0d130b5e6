"""What the task files of this folder call: documents, prompts and scores by LongBench's official protocol."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from lazybench.tasks.documents import PROMPTS, load_documents
from lazybench.tasks.metrics import score


def load(dataset: str, data_root: str | None = None, **metadata: Any) -> dict[str, Dataset]:
    """The test split. lm-eval's command line passes the folder as ``--metadata '{"data_root": "FOLDER"}'``."""
    rows = load_documents(dataset, data_root).rows
    return {"test": Dataset.from_list([{**row, "dataset": dataset} for row in rows])}


def doc_to_text(doc: dict[str, Any]) -> str:
    """The official template filled in: pred.py's ``prompt_format.format(**json_obj)``."""
    return PROMPTS[doc["dataset"].removesuffix("_e")].format(context=doc["context"], input=doc["input"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"score": score(doc["dataset"], results[0], doc["answers"], doc["all_classes"])}
