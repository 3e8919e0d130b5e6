"""RULER's eight retrieval tasks: keys and values hidden in filling, and a question for one or several of them.

Templates and settings: NVIDIA/RULER, scripts/data/synthetic (niah.py, constants.py) and scripts/synthetic.yaml.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Literal

from lazybench.tasks.ruler.recipe import MOST_UNITS, CountTokens, Recipe, around
from lazybench.tasks.ruler.texts import Texts

MAX_NEW_TOKENS = 128
TEMPLATE = (
    "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {type_needle_v} afterwards.\n{context}\n"
    "What are all the special magic {type_needle_v} for {query} mentioned in the provided text?"
)
ANSWER_PREFIX = " The special magic {type_needle_v} for {query} mentioned in the provided text are"
NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
DEPTHS = tuple(round(100 * place / 39) for place in range(40))  # percent: where a needle may stand in an essay

Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True)
class Needles:
    """What tells the eight tasks apart."""

    haystack: Literal["noise", "essay", "needle"]
    keys: Kind = "words"
    values: Kind = "numbers"
    num_keys: int = 1
    num_values: int = 1  # of each key
    num_queries: int = 1


TASKS = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", values="uuids"),
    "niah_multikey_1": Needles("essay", num_keys=4),
    "niah_multikey_2": Needles("needle"),
    "niah_multikey_3": Needles("needle", keys="uuids", values="uuids"),
    "niah_multivalue": Needles("essay", num_values=4),
    "niah_multiquery": Needles("essay", num_keys=4, num_queries=4),
}


def needles_recipe(task: Needles, draw: Random, texts: Texts) -> Recipe:
    """One sample of the task; ``draw`` is the sample's own."""
    keys = [_drawn(task.keys, draw, texts) for _ in range(task.num_keys)]
    values = [[_drawn(task.values, draw, texts) for _ in range(task.num_values)] for _ in keys]
    asked = draw.sample(range(task.num_keys), task.num_queries)
    hidden = [(key, value) for key in range(task.num_keys) for value in values[key]]
    draw.shuffle(hidden)
    essay = task.haystack == "essay"
    depths = sorted(depth / 100 for depth in draw.sample(DEPTHS, len(hidden))) if essay else _uniform(draw, hidden)
    needles = [NEEDLE.format(type_needle_v=task.values, key=keys[key], value=value) for key, value in hidden]
    filling_seed = draw.getrandbits(64)

    def other_needles() -> Iterator[str]:
        again = Random(filling_seed)
        while True:
            key, value = (_drawn(kind, again, texts) for kind in (task.keys, task.values))
            yield NEEDLE.format(type_needle_v=task.values, key=key, value=value)

    filling: dict[str, Callable[[int], list[str]]] = {
        "noise": lambda size: [NOISE] * size,
        "needle": lambda size: [needle for _, needle in zip(range(size), other_needles(), strict=False)],
        "essay": lambda size: first_words(texts.essay, size),
    }
    queried = [keys[key] for key in asked]
    query = ", ".join(queried[:-1]) + ", and " + queried[-1] if len(queried) > 1 else queried[0]
    template, prefix, noun = TEMPLATE, ANSWER_PREFIX, str(task.values)
    if task.num_queries * task.num_values == 1:  # one value is asked for: the benchmark's own rewording
        template, prefix = (_singular(text) for text in (template, prefix))
        noun = noun.removesuffix("s")

    words = {"type_needle_v": noun, "query": query}

    def build(size: int, count_tokens: CountTokens) -> str:
        sentences = filling[task.haystack](size)
        for depth, needle in reversed(list(zip(depths, needles, strict=True))):
            sentences.insert(int(len(sentences) * depth), needle)
        context = (" " if essay else "\n").join(sentences)
        return template.format(context=context, **words)

    answers = tuple(value for key in asked for value in values[key])
    details = {}
    if len(answers) == 1:
        details["depth"] = depths[hidden.index((asked[0], answers[0]))]
    return Recipe(answers, prefix.format(**words), build, around(template, **words), len(needles), MOST_UNITS, details)


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


def _uniform(draw: Random, hidden: Sequence[object]) -> list[float]:
    return sorted(draw.random() for _ in hidden)


def _drawn(kind: Kind, draw: Random, texts: Texts) -> str:
    if kind == "numbers":
        return str(draw.randint(1_000_000, 9_999_999))
    if kind == "uuids":
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return f"{draw.choice(texts.adjectives)}-{draw.choice(texts.nouns)}"


def _singular(text: str) -> str:
    return text.replace("Some", "A").replace("are all", "is").replace("are", "is")
