"""RULER as a task: thirteen kinds of samples, built to a length in the model's own tokens.

RULER (arXiv 2404.06654), NVIDIA/RULER. Deviations, and why lm-eval's generators are not used:
docs/long_context_tasks.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from lazybench.errors import SampleError, UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import DataSettings, Prompt, Sample
from lazybench.tasks.categories import CATEGORIES
from lazybench.tasks.embedded import sha256_of, whole_number
from lazybench.tasks.prompting import encode_text
from lazybench.tasks.ruler import counting, needles, question_sets, questions, tracking
from lazybench.tasks.ruler.recipe import Recipe, largest_size
from lazybench.tasks.ruler.texts import Texts

SAMPLES = 500  # of each task and length, as published
DEFAULT_LENGTH = 4096
NEW_TOKENS = {
    **dict.fromkeys(needles.TASKS, needles.MAX_NEW_TOKENS),
    "vt": tracking.MAX_NEW_TOKENS,
    "cwe": counting.COMMON_WORDS_NEW_TOKENS,
    "fwe": counting.FREQUENT_WORDS_NEW_TOKENS,
    **dict.fromkeys(("qa_1", "qa_2"), questions.MAX_NEW_TOKENS),
}
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True)
class RulerTask:
    """``ruler_<kind>``, or ``ruler_<kind>_embedded`` with the Python documentation in place of a download.

    Parameters: ``length``, prompt and generation together, in tokens of the model.
    """

    name: str
    settings: DataSettings
    min_new_tokens: int = 0
    stop_at_newline: bool = False
    chat_format: bool = True
    stop_strings: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        return CATEGORIES[self.name]

    @property
    def kind(self) -> str:
        return self.name.removeprefix("ruler_").removesuffix("_embedded")

    @property
    def max_new_tokens(self) -> int:
        return NEW_TOKENS[self.kind]

    @property
    def length(self) -> int:
        return whole_number(self.settings.parameters, "length", DEFAULT_LENGTH, least=self.max_new_tokens + 1)

    @property
    def prompt_tokens(self) -> int:
        """At most: the length less the generation that the benchmark leaves room for, whatever a run generates."""
        return self.length - self.max_new_tokens

    @property
    def embedded(self) -> bool:
        return self.name.endswith("_embedded")

    @cached_property
    def texts(self) -> Texts:
        return Texts(self.settings.root, self.embedded)

    @cached_property
    def questions(self) -> question_sets.QuestionSet:
        if self.embedded:
            return question_sets.documentation_clozes(1 if self.kind == "qa_1" else 2)
        return (question_sets.squad if self.kind == "qa_1" else question_sets.hotpotqa)(self.settings.root)

    @property
    def _essay(self) -> bool:
        return self.kind in needles.TASKS and needles.TASKS[self.kind].haystack == "essay"

    @property
    def source(self) -> str:
        if self.kind.startswith("qa_"):
            return self.questions.source
        return self.texts.essay_source if self._essay else "generated"

    @cached_property
    def fingerprint(self) -> str:
        """Of the texts and word lists, and of the first sample: a changed generator is changed data."""
        return sha256_of(self._ingredients())

    def _ingredients(self) -> Iterator[str]:
        first = self._recipe(0)
        yield from (first.preview(), *first.answers)
        if self.kind == "cwe":
            yield from self.texts.words
        if self.kind in needles.TASKS and needles.TASKS[self.kind].keys == "words":
            yield from (*self.texts.adjectives, *self.texts.nouns)
        if self._essay:
            yield from self.texts.essay
        if self.kind.startswith("qa_"):
            yield from self.questions.documents
            yield from (text for entry in self.questions.questions for text in (entry.query, *entry.answers))

    @cached_property
    def _recipes(self) -> dict[str, Recipe]:
        total = min(SAMPLES, len(self.questions.questions)) if self.kind.startswith("qa_") else SAMPLES
        index, count = self.settings.shard
        numbers = range(total)[: self.settings.limit][index::count]
        return {f"{self.settings.seed}-{number}": self._recipe(number) for number in numbers}

    def _recipe(self, number: int) -> Recipe:
        draw = Random(f"{self.settings.seed} {self.kind} {number}")
        if self.kind in needles.TASKS:
            return needles.needles_recipe(needles.TASKS[self.kind], draw, self.texts)
        if self.kind == "vt":
            return tracking.tracking_recipe(draw)
        if self.kind == "cwe":
            return counting.common_words_recipe(draw, self.texts.words, self.length)
        if self.kind == "fwe":
            return counting.frequent_words_recipe(draw, self.length)
        return questions.question_recipe(number, draw, self.questions)

    def samples(self) -> Sequence[Sample]:
        """The samples with their smallest prompts; ``encode`` builds those that a model gets."""
        length = self.length
        return [
            Sample(sample_id, recipe.preview(), recipe.answers, details={**recipe.details, "length": length})
            for sample_id, recipe in self._recipes.items()
        ]

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The longest prompt that fits ``length`` together with its official generation; nothing of it is cut.

        Raises:
            UserError: the model's window is smaller, or the length too small for what is asked.
        """
        if (surplus := self.prompt_tokens + new_tokens - loaded.window_tokens) > 0:
            raise UserError(
                f"task.parameters.length={self.length} exceeds the window of {loaded.window_tokens} tokens of model "
                f"{loaded.spec.name} with {new_tokens} new ones; RULER's prompts are never cut: choose "
                f"length={max(self.length - surplus, 1)} or less"
            )
        recipe = self._recipes[sample.sample_id]

        def count(text: str) -> int:
            return len(loaded.tokenizer(text, truncation=False, verbose=False).input_ids)

        def at(size: int) -> Prompt:
            prompt = recipe.build(size, count)
            return encode_text(loaded, prompt, recipe.context(prompt), self.chat_format, recipe.answer_prefix)

        size = largest_size(lambda size: at(size).ids.shape[1], recipe.least, recipe.most, self.prompt_tokens)
        if size is None:
            needed = at(recipe.least).ids.shape[1] + self.max_new_tokens
            raise SampleError(
                f"task.parameters.length={self.length} is too small for sample {sample.sample_id} of {self.name}, "
                f"which needs {needed} tokens with its generation"
            )
        return at(size)

    def score(self, prediction: str, sample: Sample) -> float:
        """``string_match_part`` for the questions (any answer), else ``string_match_all`` (the share found)."""
        text = CONTROL_CHARACTERS.sub("\n", prediction.strip()).strip().lower()
        found = [answer.lower() in text for answer in sample.answers]
        return float(any(found)) if self.kind.startswith("qa_") else sum(found) / len(found)
