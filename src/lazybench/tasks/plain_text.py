"""Prompts of an exact length from real text, for timing alone: nothing is asked and nothing is scored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.tasks.base import DataSettings, Sample

CHARACTERS_PER_TOKEN = 8  # more than any tokenizer packs into a token of English prose, so the cut is always exact


@dataclass(frozen=True)
class PlainText:
    """The manual pages of ``pydoc_data.topics``, cut to ``prompt_tokens`` each; the generation has a fixed length.

    Named ``plain_text_<prompt_tokens>``; ``parameters.prompts`` says how many stretches of the text.
    """

    settings: DataSettings
    prompt_tokens: int
    category: str = "latency"
    max_new_tokens: int = 64
    stop_at_newline: bool = False
    chat_format: bool = False
    source: str = "pydoc_data.topics of the running Python"

    @property
    def name(self) -> str:
        return f"plain_text_{self.prompt_tokens}"

    @property
    def min_new_tokens(self) -> int:
        """No early end of sequence: every method generates the same number of tokens."""
        return self.max_new_tokens

    @cached_property
    def text(self) -> str:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def samples(self) -> Sequence[Sample]:
        prompts = self.settings.parameters.get("prompts", 1)
        if isinstance(prompts, bool) or not isinstance(prompts, int) or prompts < 1:
            raise UserError(f"task.parameters.prompts={prompts!r} must be a whole number of prompts, at least 1")
        samples = [self._sample(number) for number in range(prompts)]
        index, count = self.settings.shard
        return samples[: self.settings.limit][index::count]

    def _sample(self, number: int) -> Sample:
        start = (self.settings.seed + number) * 50_021 % len(self.text)  # another stretch of the text for each
        needed = self.prompt_tokens * CHARACTERS_PER_TOKEN
        text = (self.text[start:] + self.text * (1 + needed // len(self.text)))[:needed]
        return Sample(f"stretch-{number}", text, (), details={"prompt_tokens": self.prompt_tokens})

    def score(self, prediction: str, sample: Sample) -> float:
        raise UserError("task=plain_text has no score; run it with scoring=false, as experiment=latency does")


def exact_prompt(tokenizer: PreTrainedTokenizerBase, sample: Sample, window_tokens: int, new_tokens: int) -> Tensor:
    """The sample's text as exactly ``details["prompt_tokens"]`` ids.  # (1, prompt_tokens)

    Raises:
        UserError: the prompt and its generation don't fit the model's window.
    """
    length = sample.details["prompt_tokens"]
    if length + new_tokens > window_tokens:
        raise UserError(
            f"a prompt of {length} tokens and {new_tokens} new ones exceed the model's window of {window_tokens}; "
            "choose shorter ones, as in task.datasets=[plain_text_1000]"
        )
    ids: Tensor = tokenizer(sample.prompt, return_tensors="pt").input_ids[:, :length]
    if ids.shape[1] < length:
        raise UserError(f"the text gives {ids.shape[1]} tokens, fewer than the {length} asked for")
    return ids
