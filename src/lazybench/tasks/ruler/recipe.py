"""A sample of RULER before its length is known, and how its prompt is brought to a length in tokens."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_UNITS = 1_000_000  # more than any model's window holds
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Recipe:
    """What one sample asks, drawn before any tokenizer is seen: the answers are the same for every model.

    ``build(size, count_tokens)`` gives the prompt with ``size`` units of filling (sentences, words, documents), the
    same text for the same size; ``answer_prefix`` begins the answer and stands after the chat format. The context is
    what stands between the two texts of ``around``, where they stand last.
    """

    answers: tuple[str, ...]
    answer_prefix: str
    build: Callable[[int, CountTokens], str]
    around: tuple[str, str]
    least: int  # the smallest size that still holds what is asked for
    most: int = MOST_UNITS  # the largest size that the texts at hand give
    details: Mapping[str, Any] = field(default_factory=dict)

    def preview(self) -> str:
        """The smallest prompt, for a reader: no tokenizer is needed."""
        return self.build(self.least, lambda text: len(text) // 4) + self.answer_prefix

    def context(self, prompt: str) -> range:
        """The context's characters of a built prompt."""
        before, after = self.around
        return range(prompt.rindex(before) + len(before), prompt.rindex(after))


def around(template: str, **values: str) -> tuple[str, str]:
    """What a template says before its context and after it, the other fields filled in."""
    before, _, after = template.partition("{context}")
    return before.format(**values), after.format(**values)


def largest_size(tokens_at: Callable[[int], int], least: int, most: int, room: int) -> int | None:
    """The largest size whose prompt has at most ``room`` tokens; None where even the smallest has more.

    A prompt grows with its size, or nearly so; what is returned was counted and fits.
    """
    if tokens_at(least) > room:
        return None
    fits, step = least, max(least, 8)
    while fits < most and tokens_at(min(fits + step, most)) <= room:  # doubling first: nothing far too long is built
        fits, step = min(fits + step, most), 2 * step
    above = range(fits + 1, min(fits + step, most) + 1)
    return fits + bisect.bisect_right(above, room, key=tokens_at)
