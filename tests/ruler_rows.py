"""The files that RULER's own scripts leave behind, small, as tests write them."""

from __future__ import annotations

import json
from pathlib import Path

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
