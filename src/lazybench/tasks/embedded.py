"""Tasks without a data set: texts of the running Python, chosen by the seed.

``stdlib_retrieval`` is LongBench's passage-retrieval form over the Python documentation: which paragraph lost this
first sentence? Not LongBench: the prompt follows passage_retrieval_en's with "Wikipedia" replaced and the abstract
explained, the paragraphs come from ``pydoc_data.topics``, and in place of a written abstract stands the paragraph's own
first sentence, removed from it.

``needle`` hides a pass key in real text, at a chosen depth and length; after the pass-key task of Mohtashami and Jaggi
(arXiv 2305.16300), with the Python documentation in place of a repeated filler.
"""

from __future__ import annotations

import hashlib
import platform
import random
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pydoc_data.topics import topics

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt, Sample, place_of
from lazybench.tasks.documents import PROMPTS
from lazybench.tasks.metrics import score
from lazybench.tasks.prompting import OfficialPrompt

PARAGRAPH_SAMPLES = 100
PARAGRAPH_CHARACTERS = range(250, 901)  # of a paragraph without its first sentence
FIRST_SENTENCE = re.compile(r"([A-Z].{40,300}?[.]) (?=[A-Z])")

CHARACTERS_PER_TOKEN = 4  # about, of English prose
NEEDLE_TEMPLATE = (
    "A pass key is hidden in the following text. Find it and remember it.\n\n{text}\n\n"
    "What is the pass key? Give only the number.\n\nThe pass key is"
)
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."


def documentation() -> dict[str, str]:
    """The texts of ``pydoc_data.topics``: the language reference, by topic."""
    return {name: topics[name] for name in sorted(topics)}


def python_version() -> str:
    return f"Python {platform.python_version()}"


def sha256_of(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


class EmbeddedTask(OfficialPrompt):
    """A task over the Python documentation, scored by one of LongBench's metrics or by a text found."""

    @cached_property
    def source(self) -> str:
        return f"pydoc_data.topics of {python_version()}"

    def score(self, prediction: str, sample: Sample) -> float:
        return score(self.name, prediction, sample.answers)


class StdlibRetrieval(EmbeddedTask):
    """``paragraphs`` numbered paragraphs (30 make about 3,300 tokens) and the first sentence of one of them."""

    max_new_tokens = 32

    @cached_property
    def passages(self) -> list[tuple[str, str]]:
        """(first sentence, the rest) of every paragraph of prose."""
        sentences: dict[str, str] = {}
        for text in documentation().values():
            for paragraph in re.split(r"\n\s*\n", text):
                flat = " ".join(paragraph.split())
                match = FIRST_SENTENCE.match(flat)
                if match and len(rest := flat[match.end() :]) in PARAGRAPH_CHARACTERS:
                    sentences.setdefault(match[1], rest)
        return list(sentences.items())

    @cached_property
    def fingerprint(self) -> str:
        return sha256_of(text for passage in self.passages for text in passage)

    def all_samples(self) -> Iterator[Sample]:
        return map(self._sample, range(PARAGRAPH_SAMPLES))

    def _sample(self, number: int) -> Sample:
        paragraphs = self.whole_number("paragraphs", 30, least=2)
        if paragraphs > len(self.passages):
            raise UserError(f"task.parameters.paragraphs={paragraphs}: the documentation has {len(self.passages)}")
        draw = random.Random(f"{self.settings.seed} {number}")
        chosen = draw.sample(self.passages, paragraphs)
        answer = draw.randrange(paragraphs)
        context = "\n\n".join(f"Paragraph {place}: {rest}" for place, (_, rest) in enumerate(chosen, start=1))
        template = PROMPTS["passage_retrieval_en"].replace("30 paragraphs", f"{paragraphs} paragraphs")
        template = template.replace("Wikipedia", "the Python documentation")
        template = template.replace("an abstract", "a sentence").replace("the abstract", "the sentence")
        prompt = template.format(context=context, input=chosen[answer][0])
        answers = (f"Paragraph {answer + 1}",)
        return Sample(f"{self.settings.seed}-{number}", prompt, answers, context=place_of(context, prompt))


class Needle(EmbeddedTask):
    """Parameters: ``length`` of the prompt in tokens (about), ``depth`` 0..1 or none to spread it, ``samples``."""

    max_new_tokens = 16
    chat_format = False  # the prompt's end begins the answer

    @cached_property
    def text(self) -> str:
        return "\n".join(documentation().values())

    @cached_property
    def fingerprint(self) -> str:
        return sha256_of([self.text])

    def all_samples(self) -> Iterator[Sample]:
        return map(self._sample, range(self.whole_number("samples", 20)))

    def _sample(self, number: int) -> Sample:
        length = self.whole_number("length", 3000, least=50)
        draw = random.Random(f"{self.settings.seed} {number}")
        depth = self.settings.parameters.get("depth")
        if depth is None:
            # the golden ratio's multiples: the first few samples are spread as evenly as all of them
            depth = (number * 0.618033988749895) % 1.0
        elif isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 <= depth <= 1:
            raise UserError(f"task.parameters.depth={depth!r} must be from 0, the start, to 1, the end; or null")
        key = str(draw.randrange(10_000, 100_000))
        characters = length * CHARACTERS_PER_TOKEN - len(NEEDLE_TEMPLATE) - len(NEEDLE)
        lines = self._lines(draw.randrange(len(self.text)), max(characters, 0))
        lines.insert(round(depth * len(lines)), NEEDLE.format(key=key))
        details = {"depth": depth, "length": length}
        text = "\n".join(lines)
        prompt = NEEDLE_TEMPLATE.format(text=text)
        return Sample(f"{self.settings.seed}-{number}", prompt, (key,), (), details, place_of(text, prompt))

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The whole prompt, or none: the needle lies in the middle that LongBench's protocol cuts out.

        Raises:
            UserError: the prompt exceeds the model's limit.
        """
        prompt = super().encode(loaded, sample, new_tokens)
        if prompt.truncated_from is not None:
            length, fits, whole = sample.details["length"], prompt.ids.shape[1], prompt.truncated_from
            raise UserError(
                f"task.parameters.length={length} makes a prompt of {whole} tokens for model {loaded.spec.name}, "
                f"which takes {fits} with {new_tokens} new ones: the needle could be cut away; "
                f"choose length={max(50, length * fits // whole - 50)} or less, or a larger model.prompt_limit_tokens"
            )
        return prompt

    def _lines(self, start: int, characters: int) -> list[str]:
        """Whole lines of the documentation, from ``start`` on and round again, about ``characters`` long."""
        repeated = self.text[start:] + "\n" + self.text * (1 + characters // len(self.text))
        return repeated[:characters].split("\n")[1:]
