"""LongBench's passage-retrieval form over the Python documentation: which paragraph lost this first sentence?

Not LongBench: the prompt follows passage_retrieval_en's with "Wikipedia" replaced and the abstract explained,
the paragraphs come from ``pydoc_data.topics``, and in place of a written abstract stands the paragraph's own
first sentence, removed from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lazybench.errors import UserError
from lazybench.tasks.base import DataSettings, Sample, place_of
from lazybench.tasks.documents import PROMPTS
from lazybench.tasks.embedded import documentation, python_version, sha256_of, whole_number
from lazybench.tasks.metrics import score
from lazybench.tasks.prompting import OfficialPrompt

SAMPLES = 100
LEAST_CHARACTERS = 250  # of a paragraph without its first sentence
MOST_CHARACTERS = 900
FIRST_SENTENCE = re.compile(r"([A-Z].{40,300}?[.]) (?=[A-Z])")


@dataclass(frozen=True)
class StdlibRetrieval(OfficialPrompt):
    """``paragraphs`` numbered paragraphs (30 make about 3,300 tokens) and the first sentence of one of them."""

    settings: DataSettings
    name: str = "stdlib_retrieval"
    category: str = "embedded_retrieval"
    max_new_tokens: int = 32
    min_new_tokens: int = 0
    stop_at_newline: bool = False
    chat_format: bool = True

    @property
    def source(self) -> str:
        return f"pydoc_data.topics of {python_version()}"

    @cached_property
    def passages(self) -> list[tuple[str, str]]:
        """(first sentence, the rest) of every paragraph of prose."""
        found: dict[str, str] = {}
        for text in documentation().values():
            for paragraph in re.split(r"\n\s*\n", text):
                flat = " ".join(paragraph.split())
                match = FIRST_SENTENCE.match(flat)
                if match and LEAST_CHARACTERS <= len(rest := flat[match.end() :]) <= MOST_CHARACTERS:
                    found.setdefault(match[1], rest)
        return list(found.items())

    @property
    def fingerprint(self) -> str:
        return sha256_of(text for passage in self.passages for text in passage)

    def samples(self) -> Sequence[Sample]:
        index, count = self.settings.shard
        numbers = range(SAMPLES if self.settings.limit is None else min(SAMPLES, self.settings.limit))
        return [self._sample(number) for number in numbers][index::count]

    def _sample(self, number: int) -> Sample:
        paragraphs = whole_number(self.settings.parameters, "paragraphs", 30, least=2)
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

    def score(self, prediction: str, sample: Sample) -> float:
        return score(self.name, prediction, sample.answers)
