"""RULER's retrieval and variable tracking: sentences hidden in filling, and a question about them.

Source: NVIDIA/RULER, scripts/data/synthetic (niah.py, variable_tracking.py, constants.py) and scripts/synthetic.yaml.
Variables: one chain of four hops, and one solved example of up to 500 tokens in front.
"""

from __future__ import annotations

import string
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Literal

from lazybench.tasks.ruler.recipe import MOST_UNITS, CountTokens, Recipe, around, largest_size
from lazybench.tasks.ruler.sources import word_list

TEMPLATE = (
    "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {type_needle_v} afterwards.\n{context}\n"
    "What are all the special magic {type_needle_v} for {query} mentioned in the provided text?"
)
ANSWER_PREFIX = " The special magic {type_needle_v} for {query} mentioned in the provided text are"
NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
DEPTHS = tuple(round(100 * place / 39) for place in range(40))  # percent: where a needle may stand in an essay

HOPS = 4
EXAMPLE_TOKENS = 500
LEAST_NOISE = 5
VARIABLES_TEMPLATE = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\n"
    "Question: Find all variables that are assigned the value {query} in the text above."
)
VARIABLES_PREFIX = (
    " Answer: According to the chain(s) of variable assignment in the text above, "
    "{num_v} variables are assigned the value {query}, they are: "
)

Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True)
class Needles:
    """What tells the eight retrieval tasks apart."""

    haystack: Literal["noise", "essay", "needle"]
    keys: Kind = "words"
    values: Kind = "numbers"
    num_keys: int = 1
    num_values: int = 1  # of each key
    num_queries: int = 1


NEEDLES = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", values="uuids"),
    "niah_multikey_1": Needles("essay", num_keys=4),
    "niah_multikey_2": Needles("needle"),
    "niah_multikey_3": Needles("needle", keys="uuids", values="uuids"),
    "niah_multivalue": Needles("essay", num_values=4),
    "niah_multiquery": Needles("essay", num_keys=4, num_queries=4),
}


def needles_recipe(task: Needles, draw: Random, essay: Sequence[str]) -> Recipe:
    """One sample of the task; ``draw`` is the sample's own."""
    keys = [_drawn(task.keys, draw) for _ in range(task.num_keys)]
    values = [[_drawn(task.values, draw) for _ in range(task.num_values)] for _ in keys]
    asked = draw.sample(range(task.num_keys), task.num_queries)
    hidden = [(key, value) for key in range(task.num_keys) for value in values[key]]
    draw.shuffle(hidden)
    in_essay = task.haystack == "essay"
    percent = draw.sample(DEPTHS, len(hidden)) if in_essay else []
    depths = sorted(depth / 100 for depth in percent) or sorted(draw.random() for _ in hidden)
    needles = [NEEDLE.format(type_needle_v=task.values, key=keys[key], value=value) for key, value in hidden]
    filling_seed = draw.getrandbits(64)

    def other_needles() -> Iterator[str]:
        again = Random(filling_seed)
        while True:
            key, value = _drawn(task.keys, again), _drawn(task.values, again)
            yield NEEDLE.format(type_needle_v=task.values, key=key, value=value)

    filling: dict[str, Callable[[int], list[str]]] = {
        "noise": lambda size: [NOISE] * size,
        "needle": lambda size: list(islice(other_needles(), size)),
        "essay": lambda size: first_words(essay, size),
    }
    queried = [keys[key] for key in asked]
    query = ", ".join(queried[:-1]) + ", and " + queried[-1] if len(queried) > 1 else queried[0]
    template, prefix, noun = TEMPLATE, ANSWER_PREFIX, str(task.values)
    if task.num_queries * task.num_values == 1:  # one value is asked for: the benchmark's own rewording
        template, prefix = (_singular(text) for text in (template, prefix))
        noun = noun.removesuffix("s")
    words = {"type_needle_v": noun, "query": query}

    def build(size: int, count_tokens: CountTokens) -> str:
        lines = filling[task.haystack](size)
        for depth, needle in reversed(list(zip(depths, needles, strict=True))):
            lines.insert(int(len(lines) * depth), needle)
        return template.format(context=(" " if in_essay else "\n").join(lines), **words)

    answers = tuple(value for key in asked for value in values[key])
    details = {}
    if len(answers) == 1:
        details["depth"] = depths[hidden.index((asked[0], answers[0]))]
    parts = around(template, **words)
    return Recipe(answers, prefix.format(**words), build, parts, len(needles), details=details)


def variables_recipe(draw: Random) -> Recipe:
    """One sample of variable tracking; ``draw`` is the sample's own."""
    example, question = _Chain(draw, letters=3), _Chain(draw, letters=5)

    def build(size: int, count_tokens: CountTokens) -> str:
        def tokens_at(noise: int) -> int:
            return count_tokens(example.solved(noise))

        noise = largest_size(tokens_at, LEAST_NOISE, MOST_UNITS, EXAMPLE_TOKENS) or LEAST_NOISE
        return f"{example.solved(noise)}\n\n{question.text(size)}"

    parts = around(VARIABLES_TEMPLATE, query=question.value)
    return Recipe(tuple(question.variables), question.answer_prefix, build, parts, LEAST_NOISE)


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
        self.answer_prefix = VARIABLES_PREFIX.format(num_v=HOPS + 1, query=self.value)

    def text(self, noise: int) -> str:
        values = [self.value, *(f"VAR {name} " for name in self.variables[:-1])]
        lines = [NOISE] * noise
        for depth, name, value in reversed(list(zip(self.depths, self.variables, values, strict=True))):
            lines.insert(int(noise * depth), f"VAR {name} = {value}")
        return VARIABLES_TEMPLATE.format(context="\n".join(lines), query=self.value)

    def solved(self, noise: int) -> str:
        return f"{self.text(noise)}{self.answer_prefix} {' '.join(self.variables)}"


def first_words(sentences: Sequence[str], size: int) -> list[str]:
    """The first ``size`` words of a text that starts again at its end; the last sentence may be a part of one."""
    taken: list[str] = []
    for sentence in cycle(sentences):
        words = sentence.split(" ")
        if len(words) >= size:
            return [*taken, " ".join(words[:size])]
        taken.append(sentence)
        size -= len(words)
    return taken


def _drawn(kind: Kind, draw: Random) -> str:
    if kind == "numbers":
        return str(draw.randint(1_000_000, 9_999_999))
    if kind == "uuids":
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return f"{draw.choice(word_list('adjective'))}-{draw.choice(word_list('noun'))}"


def _singular(text: str) -> str:
    return text.replace("Some", "A").replace("are all", "is").replace("are", "is")
