"""Prompts to calibrate on: six forms of long prompt over texts of the running Python, in two halves of texts.

The forms are those of LongBench's categories: a question, a summary, a passage to find, examples, code, and text that
goes on. Nothing is scored: what the plain model answers is all that a calibration asks.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt
from lazybench.tasks.embedded import documentation, sha256_of
from lazybench.tasks.prompting import encode_text, halves

CHARACTERS_PER_TOKEN = 8  # more than any tokenizer packs into a token of English prose
LENGTHS = (1.0, 0.7, 1.4)  # of the prompts, in turn, over the length that is asked for
LEFT_OUT = ("site-packages", "dist-packages", "__pycache__", "config-", "test", "idle_test", "lib2to3", "encodings")
SENTENCE = re.compile(r"(?<=\s)[A-Z][^.*:]{40,200}\.(?=\s)")
FORMS = {  # to the template, and whether it is put into the chat format
    "question": (
        "Read the text and answer the question.\n\n{text}\n\nQuestion: What is said on {topic}?\nAnswer:",
        True,
    ),
    "passage": ('{text}\n\nWhich of these sections holds the sentence "{sentence}"? Give its title.\n\nTitle:', True),
    "summary": ("Write a one-page summary of the text.\n\nText:\n{text}\n\nSummary:", True),
    "code": ("Please complete the code given below.\n{code}Next line of code:\n", False),
    "examples": ("Name the topic of each sentence.\n\n{examples}Sentence: {sentence}\nTopic:", False),
    "text": ("{text}", False),
}


@dataclass(frozen=True)
class CalibrationPrompt:
    """A text to be cut in the middle to ``tokens``; its ``sources`` are topics or files."""

    form: str
    text: str
    tokens: int
    sources: frozenset[str]

    def encode(self, loaded: LoadedModel) -> Prompt:
        """The prompt's tokens, the chat format's on top."""
        cut = "".join(halves(loaded.tokenizer, self.text, self.tokens))
        return encode_text(loaded, cut, None, chat_format=FORMS[self.form][1])


def calibration_prompts(count: int, tokens: int, seed: int, held_out: bool) -> list[CalibrationPrompt]:
    """Prompts of one half of the texts, the forms in turn.

    Args:
        tokens: their length, about.
        held_out: of the half that is compared on, not of the half that is chosen on.
    """
    topics, files = (material[held_out::2] for material in (sections(), code_files()))
    draw = Random(f"{seed} {held_out}")
    return [
        _prompt(index, round(tokens * LENGTHS[index % len(LENGTHS)]), topics, files, draw) for index in range(count)
    ]


@cache
def sections() -> list[tuple[str, str]]:
    """(topic, text) of the Python documentation, each paragraph in the first topic that has it."""
    seen: set[str] = set()
    found = []
    for topic, text in documentation().items():
        paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip() not in seen]
        seen.update(part.strip() for part in paragraphs)
        if sum(map(len, paragraphs)) > 500:
            found.append((topic, "\n\n".join(paragraphs)))
    return found


@cache
def code_files() -> list[tuple[str, str]]:
    """(path, text) of the standard library's larger sources."""
    library = Path(sysconfig.get_paths()["stdlib"])
    large = [path for path in _sources(library) if 10_000 < path.stat().st_size < 100_000]
    return [(path.relative_to(library).as_posix(), path.read_text("utf-8", "replace")) for path in large]


def fingerprint(prompts: Sequence[CalibrationPrompt]) -> str:
    """sha256 of their texts."""
    return sha256_of(prompt.text for prompt in prompts)


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(LEFT_OUT):
            yield from _sources(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _prompt(
    index: int, tokens: int, topics: list[tuple[str, str]], files: list[tuple[str, str]], draw: Random
) -> CalibrationPrompt:
    form = list(FORMS)[index % len(FORMS)]
    characters = tokens * CHARACTERS_PER_TOKEN
    material = files if form == "code" else topics
    chosen, length = [], 0
    for name, text in draw.sample(material, len(material)):
        if length < characters or form == "examples":  # a topic has few sentences
            chosen.append((name, text))
            length += len(text)
    sentences = [(name, " ".join(one.split())) for name, text in chosen for one in SENTENCE.findall(text)]
    draw.shuffle(sentences)
    topic, sentence = sentences[0] if sentences else chosen[0]
    text = FORMS[form][0].format(
        text="\n\n".join(f"{name}\n\n{text}" for name, text in chosen),
        code="\n".join(text for _, text in chosen)[-characters:],
        examples="".join(f"Sentence: {one}\nTopic: {name}\n\n" for name, one in sentences[1:])[-characters:],
        topic=topic,
        sentence=sentence,
    )
    return CalibrationPrompt(form, text, tokens, frozenset(name for name, _ in chosen))
