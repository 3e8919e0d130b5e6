"""LongBench-schema files that tests write."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    """One line of a LongBench file."""
    full: dict[str, Any] = {
        "input": f"What is {{number}} {number}?",
        "context": f"Line one {{braces}} of {number}.\nLine two {{{{jinja}}}}.\n",
        "answers": ["Paragraph 3" if number else "段落3 Paragraph 3"],
        "length": 3000 + 3000 * number,
        "dataset": "any",
        "language": "en",
        "all_classes": None,
        "_id": f"id{number}",
    }
    return {**full, **changed}


@cache
def tokenizer_of(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def write(folder: Path, name: str, rows: list[Any]) -> Path:
    """A data folder with ``name``.jsonl; a row that is text is written as it is."""
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
