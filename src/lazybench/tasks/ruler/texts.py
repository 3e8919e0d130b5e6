"""The words and texts that RULER's tasks are made of: wonderwords' lists, and essays or the Python documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from lazybench.errors import UserError
from lazybench.tasks.documents import hub_errors, hub_file, read_file
from lazybench.tasks.embedded import documentation, python_version
from lazybench.tasks.rows import json_value

ESSAYS = "PaulGrahamEssays.json"  # as RULER's download_paulgraham_essay.py names and writes it
ESSAYS_HUB_ID = "baber/paul_graham_essays"  # what lm-eval reads
ESSAYS_REVISION = "792d672b77d1a67720f7e9820d646358fc18792e"
OR_EMBEDDED = " (or take the task's _embedded form)"
DOCUMENTATION = "pydoc_data.topics of {version}"


@dataclass(frozen=True)
class Texts:
    """Loaded when they are asked for, so that a task of numbers needs no file."""

    root: Path | None = None  # a folder with PaulGrahamEssays.json; None: the hub
    embedded: bool = False  # the Python documentation in place of the essays

    @cached_property
    def nouns(self) -> Sequence[str]:
        return _word_list("noun")

    @cached_property
    def adjectives(self) -> Sequence[str]:
        return _word_list("adjective")

    @cached_property
    def words(self) -> Sequence[str]:
        return sorted({*self.nouns, *self.adjectives, *_word_list("verb")})

    @cached_property
    def essay(self) -> Sequence[str]:
        """Its sentences, in their order, with single blanks between words."""
        if self.embedded:
            return sentences("\n".join(documentation().values()))
        if self.root is not None:
            return sentences(_essays_of_file(self.root))
        return sentences(_essays_of_hub())

    @property
    def essay_source(self) -> str:
        if self.embedded:
            return DOCUMENTATION.format(version=python_version())
        return f"file {ESSAYS}" if self.root is not None else f"hub {ESSAYS_HUB_ID}@{ESSAYS_REVISION}"


def sentences(text: str) -> list[str]:
    """Sentences by nltk's Punkt algorithm with its own defaults, which need no download."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return [str(sentence) for sentence in PunktSentenceTokenizer().tokenize(" ".join(text.split()))]


@cache
def _word_list(part_of_speech: str) -> Sequence[str]:
    try:
        from wonderwords import RandomWord
    except ImportError:
        raise UserError("this task draws its words from wonderwords; install it with pip install wonderwords") from None
    return sorted(RandomWord().filter(include_categories=[part_of_speech]))


def _essays_of_file(root: Path) -> str:
    content = read_file(root, ESSAYS)
    try:
        text = json_value(ESSAYS, content)["text"]
    except UserError:
        raise
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{root / ESSAYS} must be a JSON object whose field 'text' holds the essays")
    return text


def _essays_of_hub() -> str:
    with hub_errors(ESSAYS_HUB_ID, ESSAYS_REVISION, f"{ESSAYS}{OR_EMBEDDED}"):
        from pyarrow import parquet

        column = parquet.read_table(hub_file(ESSAYS_HUB_ID, "essays.parquet", ESSAYS_REVISION)).column("text")
        return " ".join(column.to_pylist())
