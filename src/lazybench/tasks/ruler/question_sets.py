"""Questions with the documents that answer them: SQuAD, HotpotQA, or clozes over the Python documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lazybench.errors import UserError
from lazybench.tasks.documents import hub_errors, hub_file, read_file
from lazybench.tasks.embedded import documentation, python_version
from lazybench.tasks.rows import json_value
from lazybench.tasks.ruler.texts import DOCUMENTATION, OR_EMBEDDED, sentences

SQUAD = "squad.json"  # SQuAD 2.0's dev set, as RULER's download_qa_dataset.sh names it
SQUAD_HUB = ("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412")
SQUAD_HUB_FILE = "squad_v2/validation-00000-of-00001.parquet"
HOTPOT = "hotpotqa.json"  # HotpotQA's dev set with distractors
HOTPOT_HUB = ("namlh2004/hotpotqa", "7e54db4656209750ff487f6fdf8e39a66dba136b")  # what lm-eval reads
HOTPOT_HUB_FILE = "hotpot_dev_distractor_v1.json"
QUOTED_NAME = re.compile(r'"([A-Za-z_][\w.]{3,30}(?:\(\))?)"')
LEAST_DOCUMENT_CHARACTERS = 200


@dataclass(frozen=True)
class Question:
    query: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]  # those that answer it; always in the prompt
    same_article: tuple[int, ...] = ()  # the first others to join them


@dataclass(frozen=True)
class QuestionSet:
    documents: Sequence[str]
    questions: Sequence[Question]
    source: str


def squad(root: Path | None) -> QuestionSet:
    """SQuAD 2.0's answerable questions; a document is a paragraph.

    Raises:
        UserError: the file is missing or malformed, or the hub out of reach.
    """
    if root is not None:
        articles: dict[str, list[tuple[str, str, list[str]]]] = {}
        with _well_formed(root, SQUAD):
            for place, article in enumerate(json_value(SQUAD, read_file(root, SQUAD))["data"]):
                asked = articles.setdefault(f"{place} {article.get('title')}", [])
                for paragraph in article["paragraphs"]:
                    for entry in paragraph["qas"]:
                        answers = [] if entry["is_impossible"] else [answer["text"] for answer in entry["answers"]]
                        asked.append((paragraph["context"], entry["question"], answers))
        return _of_articles(articles, f"file {SQUAD}")
    articles = {}
    with hub_errors(*SQUAD_HUB, f"{SQUAD}{OR_EMBEDDED}"):
        from pyarrow import parquet

        for row in parquet.read_table(hub_file(SQUAD_HUB[0], SQUAD_HUB_FILE, SQUAD_HUB[1])).to_pylist():
            entry = (row["context"], row["question"], list(row["answers"]["text"]))
            articles.setdefault(row["title"], []).append(entry)
    return _of_articles(articles, f"hub {SQUAD_HUB[0]}@{SQUAD_HUB[1]}")


def hotpotqa(root: Path | None) -> QuestionSet:
    """HotpotQA's questions with their ten paragraphs; a document is a title and a paragraph.

    Raises:
        UserError: the file is missing or malformed, or the hub out of reach.
    """
    if root is not None:
        content, source = read_file(root, HOTPOT), f"file {HOTPOT}"
    else:
        with hub_errors(*HOTPOT_HUB, f"{HOTPOT}{OR_EMBEDDED}"):
            content = hub_file(HOTPOT_HUB[0], HOTPOT_HUB_FILE, HOTPOT_HUB[1]).read_bytes()
        source = f"hub {HOTPOT_HUB[0]}@{HOTPOT_HUB[1]}"
    with _well_formed(root, HOTPOT):
        rows = [
            (row["question"], row["answer"], [f"{title}\n{''.join(lines)}" for title, lines in row["context"]])
            for row in json_value(HOTPOT, content)
        ]
    documents = sorted({document for _, _, shown in rows for document in shown})
    index = {document: place for place, document in enumerate(documents)}
    questions = [
        Question(query, (answer,), tuple(dict.fromkeys(index[document] for document in shown)))
        for query, answer, shown in rows
    ]
    return _some(QuestionSet(documents, questions, source))


def documentation_clozes(num_documents: int) -> QuestionSet:
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
                found = places.setdefault(name, [])
                if sentence.count(name) == 1 and (not found or found[-1][0] != place):
                    found.append((place, sentence))
    questions = []
    for name, found in places.items():
        if len(found) < num_documents:
            continue
        chosen = found[:num_documents]
        blanks = " and ".join(f"'{sentence.replace(name, '____')}'" for _, sentence in chosen)
        kind = "this sentence" if num_documents == 1 else "both of these sentences"
        own = tuple(place for place, _ in chosen)
        near = [place for place, topic in enumerate(topics) if topic == topics[own[0]] and place not in own]
        questions.append(Question(f"Which name is missing from {kind}: {blanks}?", (name,), own, tuple(near)))
    Random(0).shuffle(questions)  # else the first ones would all be about the first topics
    return QuestionSet(texts, questions, DOCUMENTATION.format(version=python_version()))


def _of_articles(articles: Mapping[str, Iterable[tuple[str, str, list[str]]]], source: str) -> QuestionSet:
    documents = sorted({paragraph for asked in articles.values() for paragraph, _, _ in asked})
    index = {paragraph: place for place, paragraph in enumerate(documents)}
    questions = []
    for asked in articles.values():
        together = list(dict.fromkeys(index[paragraph] for paragraph, _, _ in asked))
        for paragraph, query, answers in asked:
            if answers:
                own = index[paragraph]
                near = tuple(other for other in together if other != own)
                questions.append(Question(query, tuple(answers), (own,), near))
    return _some(QuestionSet(documents, questions, source))


def _some(questions: QuestionSet) -> QuestionSet:
    if not questions.questions:
        raise UserError(f"{questions.source} holds no question that has an answer")
    return questions


@contextmanager
def _well_formed(root: Path | None, name: str) -> Iterator[None]:
    """A field that is missing or of another kind becomes one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        where = name if root is None else root / name
        raise UserError(f"{where} is not in its benchmark's own JSON format ({reason})") from None
