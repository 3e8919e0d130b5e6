"""Prompts of an exact length from real text, for timing alone: nothing is asked and nothing is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt, Sample, Task
from lazybench.tasks.embedded import documentation
from lazybench.tasks.prompting import tokens_of

CHARACTERS_PER_TOKEN = 8  # more than any tokenizer packs into a token of English prose, so the cut is always exact


class PlainText(Task):
    """The manual pages of ``pydoc_data.topics``, cut to ``prompt_tokens`` each; the generation has a fixed length.

    Named ``plain_text_<prompt_tokens>``; ``parameters.prompts`` says how many stretches of the text.
    """

    category = "latency"
    max_new_tokens = 64
    min_new_tokens = max_new_tokens  # no early end: every method generates the same number of tokens
    chat_format = False
    source = "pydoc_data.topics of the running Python"

    @cached_property
    def prompt_tokens(self) -> int:
        return int(self.name.removeprefix("plain_text_"))

    @cached_property
    def text(self) -> str:
        return "\n\n".join(documentation().values())

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def all_samples(self) -> Iterator[Sample]:
        return map(self._sample, range(self.whole_number("prompts", 1)))

    def _sample(self, number: int) -> Sample:
        start = (self.settings.seed + number) * 50_021 % len(self.text)  # another stretch of the text for each
        needed = self.prompt_tokens * CHARACTERS_PER_TOKEN
        text = (self.text[start:] + self.text * (1 + needed // len(self.text)))[:needed]
        return Sample(f"stretch-{number}", text, ())

    def score(self, prediction: str, sample: Sample) -> float:
        raise UserError("task=plain_text has no score; run it with scoring=false, as experiment=latency does")

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The text's first ``prompt_tokens`` tokens, whatever the model's prompt limit.

        Raises:
            UserError: they exceed the model's window together with the generation.
        """
        if self.prompt_tokens + new_tokens > loaded.window_tokens:
            raise UserError(
                f"a prompt of {self.prompt_tokens} tokens and {new_tokens} new ones exceed the model's window of "
                f"{loaded.window_tokens}; choose shorter ones, as in 'task.datasets=[plain_text_1000]'"
            )
        everything = range(len(sample.prompt))
        whole = tokens_of(loaded.tokenizer, sample.prompt, everything, everything)
        tokens = slice(self.prompt_tokens)
        assert whole.context is not None
        assert whole.ids.shape[1] >= self.prompt_tokens  # CHARACTERS_PER_TOKEN
        return Prompt(whole.ids[:, tokens], whole.template[tokens], whole.context[tokens])
