"""A pass key hidden in real text, at a chosen depth and length: does the model still find it?

After the pass-key task of Mohtashami and Jaggi (arXiv 2305.16300), with the Python documentation in place of a
repeated filler.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import DataSettings, Prompt, Sample, place_of
from lazybench.tasks.embedded import documentation, python_version, sha256_of, whole_number
from lazybench.tasks.metrics import score
from lazybench.tasks.prompting import OfficialPrompt, encode_prompt

CHARACTERS_PER_TOKEN = 4  # about, of English prose
TEMPLATE = (
    "A pass key is hidden in the following text. Find it and remember it.\n\n{text}\n\n"
    "What is the pass key? Give only the number.\n\nThe pass key is"
)
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."


@dataclass(frozen=True)
class Needle(OfficialPrompt):
    """Parameters: ``length`` of the prompt in tokens (about), ``depth`` 0..1 or none to spread it, ``samples``."""

    settings: DataSettings
    name: str = "needle"
    category: str = "embedded_needle"
    max_new_tokens: int = 16
    min_new_tokens: int = 0
    stop_at_newline: bool = False
    chat_format: bool = False  # the prompt's end begins the answer

    @property
    def source(self) -> str:
        return f"pydoc_data.topics of {python_version()}"

    @cached_property
    def text(self) -> str:
        return "\n".join(documentation().values())

    @property
    def fingerprint(self) -> str:
        return sha256_of([self.text])

    def samples(self) -> Sequence[Sample]:
        total = whole_number(self.settings.parameters, "samples", 20)
        index, count = self.settings.shard
        shown = total if self.settings.limit is None else min(total, self.settings.limit)
        return [self._sample(number, total) for number in range(shown)][index::count]

    def _sample(self, number: int, total: int) -> Sample:
        length = whole_number(self.settings.parameters, "length", 3000, least=50)
        draw = random.Random(f"{self.settings.seed} {number}")
        depth = self.settings.parameters.get("depth")
        if depth is None:
            # the golden ratio's multiples: the first few samples are spread as evenly as all of them
            depth = (number * 0.618033988749895) % 1.0
        elif isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 <= depth <= 1:
            raise UserError(f"task.parameters.depth={depth!r} must be from 0, the start, to 1, the end; or null")
        key = str(draw.randrange(10_000, 100_000))
        characters = length * CHARACTERS_PER_TOKEN - len(TEMPLATE) - len(NEEDLE)
        lines = self._lines(draw.randrange(len(self.text)), max(characters, 0))
        lines.insert(round(depth * len(lines)), NEEDLE.format(key=key))
        details = {"depth": depth, "length": length}
        text = "\n".join(lines)
        prompt = TEMPLATE.format(text=text)
        return Sample(f"{self.settings.seed}-{number}", prompt, (key,), (), details, place_of(text, prompt))

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The whole prompt, or none: the needle lies in the middle that LongBench's protocol cuts out.

        Raises:
            UserError: the prompt exceeds the model's limit.
        """
        prompt = encode_prompt(loaded, self, sample, new_tokens)
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

    def score(self, prediction: str, sample: Sample) -> float:
        return score(self.name, prediction, sample.answers)
