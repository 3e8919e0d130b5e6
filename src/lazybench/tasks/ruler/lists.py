"""RULER's aggregation and question answering: words to count in a list or a coded text, and documents to read.

Source: NVIDIA/RULER, scripts/data/synthetic (common_words_extraction.py, freq_words_extraction.py, qa.py,
constants.py).
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from itertools import cycle, islice
from random import Random

from lazybench.tasks.ruler.recipe import CountTokens, Recipe, around
from lazybench.tasks.ruler.sources import Material

COMMON_WORDS_TEMPLATE = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n{context}\n"
    "Question: What are the 10 most common words in the above list?"
)
COMMON_WORDS_PREFIX = " Answer: The top 10 words that appear most often in the list are:"
NUM_COMMON = 10
SHORT_LENGTH = 4096  # below it fewer repetitions, in the example and in the question

FREQUENT_WORDS_TEMPLATE = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. {context}\n"
    "Question: Do not provide any explanation. Please ignore the dots '....'. "
    "What are the three most frequently appeared words in the above coded text?"
)
FREQUENT_WORDS_PREFIX = " Answer: According to the coded text above, the three most frequently appeared words are:"
ZETA = math.pi**2 / 6  # the word of rank k is a share of 1 / (ZETA * k**2) of the text: zeta's distribution at 2
WORD_LETTERS = 6
LEAST_CODED = 100  # fewer coded words, and two of the first four ranks could be equally frequent

INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words."
)
QUESTION_TEMPLATE = (
    f"{INSTRUCTION}\n\nThe following are given documents.\n\n{{context}}\n\n{INSTRUCTION}\n\nQuestion: {{query}}"
)
QUESTION_PREFIX = " Answer:"


def common_words_recipe(draw: Random, words: Sequence[str], length: int) -> Recipe:
    """Ten words stand there more often than all others; one solved example comes first. ``length``: in tokens."""
    example_words, example_repeats, repeats = (20, (3, 1), (6, 1)) if length < SHORT_LENGTH else (40, (10, 3), (30, 3))
    common = draw.sample(words, NUM_COMMON)
    example = draw.sample(words, example_words)
    others_seed, shuffle_seed = draw.getrandbits(64), draw.getrandbits(64)

    def asked(chosen: Sequence[str], counts: tuple[int, int]) -> str:
        listed = list(chosen[:NUM_COMMON]) * counts[0] + list(chosen[NUM_COMMON:]) * counts[1]
        Random(shuffle_seed).shuffle(listed)
        return COMMON_WORDS_TEMPLATE.format(context=_numbered(listed))

    def build(size: int, count_tokens: CountTokens) -> str:
        solved = f"{asked(example, example_repeats)}{COMMON_WORDS_PREFIX} {_numbered(example[:NUM_COMMON])}"
        others = [word for word in Random(others_seed).sample(words, len(words)) if word not in common]
        return f"{solved}\n{asked([*common, *others][:size], repeats)}"

    parts = around(COMMON_WORDS_TEMPLATE)
    return Recipe(tuple(common), COMMON_WORDS_PREFIX, build, parts, NUM_COMMON + 1, len(words))


def frequent_words_recipe(draw: Random, prompt_tokens: int) -> Recipe:
    """Words of random letters, their frequencies a zeta distribution; the first rank is "..."."""
    vocabulary: dict[str, None] = {}  # in the order they were drawn
    while len(vocabulary) < max(prompt_tokens // 50, 8):
        vocabulary["".join(draw.choices(string.ascii_lowercase, k=WORD_LETTERS))] = None
    ranked = ["...", *list(vocabulary)[1:]]
    shuffle_seed = draw.getrandbits(64)

    def build(size: int, count_tokens: CountTokens) -> str:
        coded: list[str] = []
        for rank, word in enumerate(ranked, start=1):
            coded += [word] * int(size / (ZETA * rank**2))
        Random(shuffle_seed).shuffle(coded)
        return FREQUENT_WORDS_TEMPLATE.format(context=" ".join(coded))

    return Recipe(tuple(ranked[1:4]), FREQUENT_WORDS_PREFIX, build, around(FREQUENT_WORDS_TEMPLATE), LEAST_CODED)


def question_recipe(draw: Random, material: Material, number: int) -> Recipe:
    """The question of that number: its documents, others of its article, any others, then all of them again."""
    asked = material.questions[number]
    near = draw.sample(asked.same_article, len(asked.same_article))
    first = [*asked.documents, *near]
    others_seed, shuffle_seed = draw.getrandbits(64), draw.getrandbits(64)

    def build(size: int, count_tokens: CountTokens) -> str:
        everything = range(len(material.texts))
        known = set(first)
        others = [index for index in Random(others_seed).sample(everything, len(everything)) if index not in known]
        chosen = list(islice(cycle([*first, *others]), size))
        Random(shuffle_seed).shuffle(chosen)
        documents = (f"Document {place}:\n{material.texts[index]}" for place, index in enumerate(chosen, start=1))
        return QUESTION_TEMPLATE.format(context="\n\n".join(documents), query=asked.query)

    parts = around(QUESTION_TEMPLATE, query=asked.query)
    return Recipe(asked.answers, QUESTION_PREFIX, build, parts, len(asked.documents))


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))
