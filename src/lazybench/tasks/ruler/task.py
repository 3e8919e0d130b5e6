"""RULER as a task: thirteen kinds of samples, built to a length in the model's own tokens.

RULER (arXiv 2404.06654), NVIDIA/RULER. Deviations, and why lm-eval's generators are not used: docs/tasks.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from random import Random

from lazybench.errors import SampleError, UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt, Sample, Task
from lazybench.tasks.embedded import sha256_of
from lazybench.tasks.prompting import encode_text
from lazybench.tasks.ruler.hidden import NEEDLES, needles_recipe, variables_recipe
from lazybench.tasks.ruler.lists import common_words_recipe, frequent_words_recipe, question_recipe
from lazybench.tasks.ruler.recipe import Recipe, largest_size
from lazybench.tasks.ruler.sources import Material, material, word_list

SAMPLES = 500  # of each task and length, as published
NEW_TOKENS = {**dict.fromkeys(NEEDLES, 128), "vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f]")


class RulerTask(Task):
    """``ruler_<kind>``, or ``ruler_<kind>_embedded`` with the Python documentation in place of a download.

    Parameters: ``length``, prompt and generation together, in tokens of the model.
    """

    @cached_property
    def kind(self) -> str:
        return self.name.removeprefix("ruler_").removesuffix("_embedded")

    @cached_property
    def max_new_tokens(self) -> int:
        return NEW_TOKENS[self.kind]

    @cached_property
    def length(self) -> int:
        return self.whole_number("length", 4096, least=self.max_new_tokens + 1)

    @cached_property
    def prompt_tokens(self) -> int:
        """At most: the length less the generation that the benchmark leaves room for, whatever a run generates."""
        return self.length - self.max_new_tokens

    @cached_property
    def material(self) -> Material:
        in_essay = self.kind in NEEDLES and NEEDLES[self.kind].haystack == "essay"
        return material(self.kind, in_essay, self.name.endswith("_embedded"), self.settings.root)

    @cached_property
    def source(self) -> str:
        return self.material.source

    @cached_property
    def fingerprint(self) -> str:
        """Of the texts and word lists, and of the first sample: a changed generator is changed data."""
        return sha256_of(self._ingredients())

    def _ingredients(self) -> Iterator[str]:
        first = self._recipe(0)
        yield from (first.preview(), *first.answers)
        if self.kind == "cwe":
            yield from word_list("noun", "adjective", "verb")
        if self.kind in NEEDLES and NEEDLES[self.kind].keys == "words":
            yield from (*word_list("adjective"), *word_list("noun"))
        yield from self.material.texts
        yield from (text for asked in self.material.questions for text in (asked.query, *asked.answers))

    def _recipe(self, number: int) -> Recipe:
        draw = Random(f"{self.settings.seed} {self.kind} {number}")
        if self.material.questions:
            return question_recipe(draw, self.material, number)
        if self.kind == "vt":
            return variables_recipe(draw)
        if self.kind == "cwe":
            return common_words_recipe(draw, word_list("noun", "adjective", "verb"), self.length)
        if self.kind == "fwe":
            return frequent_words_recipe(draw, self.prompt_tokens)
        return needles_recipe(NEEDLES[self.kind], draw, self.material.texts)

    def all_samples(self) -> Iterator[Sample]:
        """The samples with their smallest prompts; ``encode`` builds those that a model gets."""
        length = self.length
        for number in range(min(SAMPLES, len(self.material.questions) or SAMPLES)):
            recipe, sample_id = self._recipe(number), f"{self.settings.seed}-{number}"
            yield Sample(sample_id, recipe.preview(), recipe.answers, details={**recipe.details, "length": length})

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
        recipe = self._recipe(int(sample.sample_id.rpartition("-")[2]))

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
        matches = [answer.lower() in text for answer in sample.answers]
        return float(any(matches)) if self.kind.startswith("qa_") else sum(matches) / len(matches)
