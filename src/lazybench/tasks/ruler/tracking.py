"""RULER's variable tracking: a chain of assignments hidden in noise; which variables hold the value?

Source: NVIDIA/RULER, scripts/data/synthetic (variable_tracking.py, constants.py): one chain of four hops, and one
solved example of up to 500 tokens in front.
"""

from __future__ import annotations

import string
from random import Random

from lazybench.tasks.ruler.needles import NOISE
from lazybench.tasks.ruler.recipe import MOST_UNITS, CountTokens, Recipe, around, largest_size

MAX_NEW_TOKENS = 30
HOPS = 4
EXAMPLE_TOKENS = 500
LEAST_NOISE = 5
TEMPLATE = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\n"
    "Question: Find all variables that are assigned the value {query} in the text above."
)
ANSWER_PREFIX = (
    " Answer: According to the chain(s) of variable assignment in the text above, "
    "{num_v} variables are assigned the value {query}, they are: "
)


def tracking_recipe(draw: Random) -> Recipe:
    """One sample; ``draw`` is the sample's own."""
    example, question = _Chain(draw, letters=3), _Chain(draw, letters=5)

    def build(size: int, count_tokens: CountTokens) -> str:
        def tokens_at(noise: int) -> int:
            return count_tokens(example.solved(noise))

        shown = largest_size(tokens_at, LEAST_NOISE, MOST_UNITS, EXAMPLE_TOKENS) or LEAST_NOISE
        return f"{example.solved(shown)}\n\n{question.text(size)}"

    parts = around(TEMPLATE, query=question.value)
    return Recipe(tuple(question.variables), question.answer_prefix, build, parts, LEAST_NOISE, MOST_UNITS)


class _Chain:
    """``VAR A = 12345``, ``VAR B = VAR A`` and so on, at random places of a text of noise."""

    def __init__(self, draw: Random, letters: int) -> None:
        self.variables: list[str] = []
        while len(self.variables) <= HOPS:
            name = "".join(draw.choices(string.ascii_uppercase, k=letters))
            if name not in self.variables:
                self.variables.append(name)
        self.value = str(draw.randrange(10_000, 99_999))
        self.depths = sorted(draw.random() for _ in self.variables)
        self.answer_prefix = ANSWER_PREFIX.format(num_v=HOPS + 1, query=self.value)

    def text(self, noise: int) -> str:
        assigned = [self.value, *(f"VAR {name} " for name in self.variables[:-1])]
        lines = [NOISE] * noise
        for depth, name, value in reversed(list(zip(self.depths, self.variables, assigned, strict=True))):
            lines.insert(int(noise * depth), f"VAR {name} = {value}")
        return TEMPLATE.format(context="\n".join(lines), query=self.value)

    def solved(self, noise: int) -> str:
        return f"{self.text(noise)}{self.answer_prefix} {' '.join(self.variables)}"
