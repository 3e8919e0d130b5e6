"""What the tests of RULER share: the files that its own scripts leave behind, small, and its prompts decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lazybench.models.spec import LoadedModel, ModelSpec
from lazybench.tasks import DataSettings, build_task

ESSAY = "  First  sentence of an essay.\n\nThe second one is longer, by far. A third asks:\twhy? " * 40
ARTICLES = [
    {
        "title": f"Article {number}",
        "paragraphs": [
            {
                "context": f"Paragraph {number}.{place} says {{braces}} and the town is T{number}{place}.",
                "qas": [
                    {
                        "question": f"Which town is in {number}.{place}?",
                        "is_impossible": False,
                        "answers": [{"text": f"T{number}{place}"}, {"text": "the town"}],
                    },
                    {"question": "Which one is not there?", "is_impossible": True, "answers": []},
                ],
            }
            for place in range(4)
        ],
    }
    for number in range(6)
]
HOTPOT = [
    {
        "question": f"Who is older, {number} or {number + 1}?",
        "answer": f"Person {number}",
        "context": [[f"Title {number + place}", ["One line.", f" Born in {number + place}."]] for place in range(3)],
    }
    for number in range(8)
]


def write_ruler_files(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "PaulGrahamEssays.json").write_text(json.dumps({"text": ESSAY}))
    (folder / "squad.json").write_text(json.dumps({"version": "v2.0", "data": ARTICLES}))
    (folder / "hotpotqa.json").write_text(json.dumps(HOTPOT))
    return folder


@cache
def tokenizer_of(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def tiny_model(checkpoint: Path, window: int = 1 << 17, wrap: Callable[[str], str] = str) -> LoadedModel:
    """A model with the tiny tokenizer; building a prompt asks for no weights."""
    spec = ModelSpec(name="tiny", path=checkpoint, prompt_limit_tokens=100)  # LongBench's: not for RULER
    return LoadedModel(spec, None, tokenizer_of(checkpoint), window, wrap, str, {})  # type: ignore[arg-type]


def prompts(loaded: LoadedModel, name: str, limit: int = 2, **data: Any) -> list[tuple[str, tuple[str, ...], Any]]:
    """Text, answers and sample as the model gets them."""
    task = build_task(name, DataSettings(limit=limit, **data))
    return [
        (loaded.tokenizer.decode(task.encode(loaded, sample, task.max_new_tokens).ids[0]), sample.answers, sample)
        for sample in task.samples()
    ]
