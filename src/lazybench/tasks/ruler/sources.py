"""What RULER's tasks are made of: wonderwords' lists, essays, and questions with the documents that answer them.

The embedded twins take the Python documentation in place of the downloads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from nltk.tokenize.punkt import PunktSentenceTokenizer
from pyarrow import parquet

from lazybench.errors import UserError
from lazybench.tasks.documents import DataFile
from lazybench.tasks.embedded import documentation, documentation_source
from lazybench.tasks.rows import json_value

OR_EMBEDDED = " (or take the task's _embedded form)"
# named as RULER's scripts name and write them (download_paulgraham_essay.py, download_qa_dataset.sh); the hub's copies
# are those that lm-eval reads. SQuAD 2.0's dev set, and HotpotQA's with distractors
ESSAYS = DataFile(
    *("PaulGrahamEssays.json", "baber/paul_graham_essays", "792d672b77d1a67720f7e9820d646358fc18792e"),
    *("essays.parquet", OR_EMBEDDED),
)
SQUAD = DataFile(
    *("squad.json", "rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412"),
    *("squad_v2/validation-00000-of-00001.parquet", OR_EMBEDDED),
)
HOTPOT = DataFile(
    *("hotpotqa.json", "namlh2004/hotpotqa", "7e54db4656209750ff487f6fdf8e39a66dba136b"),
    *("hotpot_dev_distractor_v1.json", OR_EMBEDDED),
)
QUOTED_NAME = re.compile(r'"([A-Za-z_][\w.]{3,30}(?:\(\))?)"')
LEAST_DOCUMENT_CHARACTERS = 200


@dataclass(frozen=True)
class Question:
    query: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]  # those that answer it; always in the prompt
    same_article: tuple[int, ...] = ()  # the first others to join them


@dataclass(frozen=True)
class Material:
    """What a task's prompts are filled with, beside what is generated."""

    texts: Sequence[str] = ()  # an essay's sentences in their order; or documents
    source: str = "generated"
    questions: Sequence[Question] = ()  # about the documents


def material(kind: str, in_essay: bool, embedded: bool, root: Path | None) -> Material:
    """What a task of this kind is made of.

    Args:
        embedded: from the Python documentation, in place of the downloads.
        root: where the downloads lie; None: the hub.

    Raises:
        UserError: the file is missing or malformed, or the hub out of reach; it holds no question with an answer.
    """
    if in_essay:
        return _documentation() if embedded else _essay(root)
    if not kind.startswith("qa_"):
        return Material()
    if embedded:
        return _clozes(1 if kind == "qa_1" else 2)
    found = (_squad if kind == "qa_1" else _hotpotqa)(root)
    if not found.questions:
        raise UserError(f"{found.source} holds no question that has an answer")
    return found


@cache
def word_list(*parts_of_speech: str) -> Sequence[str]:
    """Wonderwords' nouns, adjectives or verbs, or several of them together, sorted."""
    try:
        from wonderwords import RandomWord
    except ImportError:
        raise UserError("this task draws its words from wonderwords; install it with pip install wonderwords") from None
    return sorted({word for part in parts_of_speech for word in RandomWord().filter(include_categories=[part])})


def sentences(text: str) -> list[str]:
    """Sentences by nltk's Punkt algorithm with its own defaults, which need no download."""
    return [str(sentence) for sentence in PunktSentenceTokenizer().tokenize(" ".join(text.split()))]


def _documentation() -> Material:
    return Material(sentences("\n".join(documentation().values())), documentation_source())


def _essay(root: Path | None) -> Material:
    """Paul Graham's essays."""
    with ESSAYS.opened(root) as content:
        if root is None:
            text = " ".join(row["text"] for row in _parquet(content))
        else:
            text = json_value(ESSAYS.name, content)["text"]
        if not text.strip():
            raise ValueError("field 'text' is empty")
    return Material(sentences(text), ESSAYS.source(root))


def _squad(root: Path | None) -> Material:
    """SQuAD 2.0's answerable questions; a document is a paragraph."""
    articles: dict[str, list[tuple[str, str, list[str]]]] = {}  # paragraph, question, answers
    with SQUAD.opened(root) as content:
        if root is None:
            for row in _parquet(content):
                entry = (row["context"], row["question"], list(row["answers"]["text"]))
                articles.setdefault(row["title"], []).append(entry)
        else:
            for place, article in enumerate(json_value(SQUAD.name, content)["data"]):
                asked = articles.setdefault(f"{place} {article.get('title')}", [])
                for paragraph in article["paragraphs"]:
                    for entry in paragraph["qas"]:
                        answers = [] if entry["is_impossible"] else [answer["text"] for answer in entry["answers"]]
                        asked.append((paragraph["context"], entry["question"], answers))
    documents, index = _numbered(paragraph for asked in articles.values() for paragraph, _, _ in asked)
    questions = []
    for asked in articles.values():
        together = list(dict.fromkeys(index[paragraph] for paragraph, _, _ in asked))
        for paragraph, query, answers in asked:
            own = index[paragraph]
            if answers:
                near = tuple(other for other in together if other != own)
                questions.append(Question(query, tuple(answers), (own,), near))
    return Material(documents, SQUAD.source(root), questions)


def _hotpotqa(root: Path | None) -> Material:
    """HotpotQA's questions with their ten paragraphs; a document is a title and a paragraph."""
    with HOTPOT.opened(root) as content:
        rows = [
            (row["question"], row["answer"], [f"{title}\n{''.join(lines)}" for title, lines in row["context"]])
            for row in json_value(HOTPOT.name, content)
        ]
    documents, index = _numbered(document for _, _, given in rows for document in given)
    questions = [
        Question(query, (answer,), tuple(dict.fromkeys(index[document] for document in given)))
        for query, answer, given in rows
    ]
    return Material(documents, HOTPOT.source(root), questions)


def _clozes(num_documents: int) -> Material:
    """A name that was left out of a sentence of one document, or of one sentence each of two documents."""
    documents: dict[str, str] = {}  # paragraph to topic
    for topic, text in documentation().items():
        for paragraph in re.split(r"\n\s*\n", text):
            flat = " ".join(paragraph.split())
            if len(flat) >= LEAST_DOCUMENT_CHARACTERS and flat[0].isupper():
                documents.setdefault(flat, topic)
    texts, topics = list(documents), list(documents.values())
    places: dict[str, list[tuple[int, str]]] = {}  # name to the sentences that hold it once, one a document
    for place, text in enumerate(texts):
        for sentence in sentences(text):
            for name in dict.fromkeys(QUOTED_NAME.findall(sentence)):
                holding = places.setdefault(name, [])
                if sentence.count(name) == 1 and (not holding or holding[-1][0] != place):
                    holding.append((place, sentence))
    questions = []
    for name, holding in places.items():
        if len(holding) < num_documents:
            continue
        chosen = holding[:num_documents]
        blanks = " and ".join(f"'{sentence.replace(name, '____')}'" for _, sentence in chosen)
        kind = "this sentence" if num_documents == 1 else "both of these sentences"
        own = tuple(place for place, _ in chosen)
        near = [place for place, topic in enumerate(topics) if topic == topics[own[0]] and place not in own]
        questions.append(Question(f"Which name is missing from {kind}: {blanks}?", (name,), own, tuple(near)))
    Random(0).shuffle(questions)  # else the first ones would all be about the first topics
    return Material(texts, documentation_source(), questions)


def _numbered(documents: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """The different documents in alphabetical order, and the place of each."""
    ordered = sorted(set(documents))
    return ordered, {document: place for place, document in enumerate(ordered)}


def _parquet(content: bytes) -> list[dict[str, Any]]:
    return list(parquet.read_table(BytesIO(content)).to_pylist())
