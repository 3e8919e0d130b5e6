"""The tokens that a run kept positions of (``tokens.jsonl``), as the page draws them over the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lazybench.errors import UserError
from lazybench.report.names import method_title
from lazybench.store.files import TOKENS

NO_TEXT = "\N{BLACK SMALL SQUARE}"  # a token whose text is not at hand
Line = dict[str, Any]


def read(folders: Iterable[Path]) -> dict[tuple[str, str], Line]:
    """Each sample's line by task and id, of the folders that have such a file.

    Raises:
        UserError: a line that can't be read.
    """
    found = {}
    for path in (folder / TOKENS for folder in folders):
        if not path.is_file():
            continue
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found.update({(line["task"], line["sample_id"]): line for line in lines})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} can't be read ({error}); delete it, then run again with keep_tokens=true"
            ) from error
    return found


def drawn(line: Line, prompt: str | None) -> dict[str, Any]:
    """What the page's script reads: a piece of text for each token, and of each method how far it went.

    Args:
        prompt: the sample's, whole; None: it isn't at hand, or must not be shown.
    """
    tokens = len(line["methods"][0]["survived"]) if line["methods"] else 0
    spans = line["spans"] if prompt is not None and line["spans"] else [None] * tokens
    methods = []
    for one in line["methods"]:
        stages = [f"layers {first + 1}-{last + 1}" for first, last in one["stages"]]
        back = {
            token: f"step {step}, {stage}"
            for step, by_stage in reversed(list(enumerate(one["revived"], 1)))
            for stage, came in zip(stages, by_stage, strict=True)
            for token in came
        }
        title = method_title(one["method"], one["variant"])
        methods.append({"method": title, "stages": stages, "survived": one["survived"], "back": back})
    return {"pieces": [_piece(span, prompt) for span in spans], "methods": methods}


def _piece(span: list[int] | None, prompt: str | None) -> str:
    return NO_TEXT if span is None or prompt is None else prompt[span[0] : span[1]]
