"""RULER's two question-answering tasks: a question's own documents among others.

Source: NVIDIA/RULER, scripts/data/synthetic (qa.py, constants.py).
"""

from __future__ import annotations

from itertools import cycle, islice
from random import Random

from lazybench.tasks.ruler.question_sets import QuestionSet
from lazybench.tasks.ruler.recipe import MOST_UNITS, CountTokens, Recipe, around

MAX_NEW_TOKENS = 32
INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words."
)
TEMPLATE = f"{INSTRUCTION}\n\nThe following are given documents.\n\n{{context}}\n\n{INSTRUCTION}\n\nQuestion: {{query}}"
ANSWER_PREFIX = " Answer:"


def question_recipe(number: int, draw: Random, questions: QuestionSet) -> Recipe:
    """The question of that number: its documents, others of its article, any others, then all of them again."""
    asked = questions.questions[number]
    near = draw.sample(asked.same_article, len(asked.same_article))
    first = [*asked.documents, *near]
    others_seed, shuffle_seed = draw.getrandbits(64), draw.getrandbits(64)

    def build(size: int, count_tokens: CountTokens) -> str:
        everything = range(len(questions.documents))
        known = set(first)
        others = [index for index in Random(others_seed).sample(everything, len(everything)) if index not in known]
        shown = list(islice(cycle([*first, *others]), size))
        Random(shuffle_seed).shuffle(shown)
        documents = (f"Document {place}:\n{questions.documents[index]}" for place, index in enumerate(shown, start=1))
        return TEMPLATE.format(context="\n\n".join(documents), query=asked.query)

    parts = around(TEMPLATE, query=asked.query)
    return Recipe(asked.answers, ANSWER_PREFIX, build, parts, len(asked.documents), MOST_UNITS)
