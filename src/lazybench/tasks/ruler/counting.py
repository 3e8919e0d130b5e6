"""RULER's two aggregation tasks: the most common words of a list, and the most frequent words of a coded text.

Source: NVIDIA/RULER, scripts/data/synthetic (common_words_extraction.py, freq_words_extraction.py, constants.py).
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from random import Random

from lazybench.tasks.ruler.recipe import MOST_UNITS, CountTokens, Recipe, around

COMMON_WORDS_NEW_TOKENS = 120
COMMON_WORDS_TEMPLATE = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n{context}\n"
    "Question: What are the 10 most common words in the above list?"
)
COMMON_WORDS_PREFIX = " Answer: The top 10 words that appear most often in the list are:"
NUM_COMMON = 10
SHORT_LENGTH = 4096  # below it fewer repetitions, in the example and in the question

FREQUENT_WORDS_NEW_TOKENS = 50
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


def frequent_words_recipe(draw: Random, length: int) -> Recipe:
    """Words of random letters, their frequencies a zeta distribution; the first rank is "..."."""
    vocabulary: dict[str, None] = {}  # in the order they were drawn
    while len(vocabulary) < max((length - FREQUENT_WORDS_NEW_TOKENS) // 50, 8):
        vocabulary["".join(draw.choices(string.ascii_lowercase, k=WORD_LETTERS))] = None
    ranked = ["...", *list(vocabulary)[1:]]
    shuffle_seed = draw.getrandbits(64)

    def build(size: int, count_tokens: CountTokens) -> str:
        coded: list[str] = []
        for rank, word in enumerate(ranked, start=1):
            coded += [word] * int(size / (ZETA * rank**2))
        Random(shuffle_seed).shuffle(coded)
        return FREQUENT_WORDS_TEMPLATE.format(context=" ".join(coded))

    parts = around(FREQUENT_WORDS_TEMPLATE)
    return Recipe(tuple(ranked[1:4]), FREQUENT_WORDS_PREFIX, build, parts, LEAST_CODED, MOST_UNITS)


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))
