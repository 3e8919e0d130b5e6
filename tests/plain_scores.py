"""What methods that choose tokens beforehand score them by, written out on one token, layer and head at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from reference import Reference
from transformers import PreTrainedModel

from lazybench.pruning.policy import Policy


def plain(model: PreTrainedModel, prompt: list[int], steps: int = 0) -> Reference:
    """The plain model, which has read the prompt and so many greedy tokens."""
    reference = Reference(model, Policy())
    logits = reference.prefill(prompt)
    for _ in range(steps):
        logits = reference.decode(int(logits.argmax()))
    return reference


@torch.no_grad()
def heads(model: Reference, layer: int, query: int, keys: int, products: bool = False) -> list[list[float]]:
    """Each query head's attention of token ``query`` to the first ``keys`` tokens, over these alone."""
    layers = model.layers
    return [layers.scores(layer, query, head, list(range(keys)), products) for head in range(layers.query_heads)]


def smoothed(row: list[float], pool: int) -> list[float]:
    """The mean of ``pool`` neighbours, with zeros beyond the ends."""
    half = pool // 2
    return [sum(row[max(0, place - half) : place + half + 1]) / pool for place in range(len(row))]


def looked_at(model: PreTrainedModel, prompt: list[int], steps: int, pool: int, with_prompt: bool) -> list[float]:
    """SpecPrefill's and the oracle's: per query the maximum over layers and heads, then the mean over queries.

    Args:
        steps: generated tokens that are read.
        with_prompt: the prompt's last token is a query too.
    """
    read = plain(model, prompt, steps)
    first = len(prompt) - 1 if with_prompt else len(prompt)
    by_query = []
    for query in range(first, read.tokens):
        rows = [
            smoothed(row, pool)
            for layer in range(read.layers.num_layers)
            for row in heads(read, layer, query, len(prompt))
        ]
        by_query.append([max(column) for column in zip(*rows, strict=True)])
    return [sum(column) / len(by_query) for column in zip(*by_query, strict=True)]


def gemfilter_scores(model: PreTrainedModel, prompt: list[int], layer: int, pool: int) -> list[float]:
    """The last token's raw products with every key, summed over heads, smoothed."""
    read = plain(model, prompt)
    rows = heads(read, layer, len(prompt) - 1, len(prompt), products=True)
    return smoothed([sum(column) for column in zip(*rows, strict=True)], pool)


def attention_of_newest(model: PreTrainedModel, prompt: list[int], layers: int) -> list[float]:
    """Static pruning's: the last token's attention, mean over heads and over the first ``layers``."""
    read = plain(model, prompt)
    rows = [row for layer in range(layers) for row in heads(read, layer, len(prompt) - 1, len(prompt))]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def kept_positions(scores: list[float], number: int | None, keep: float | None) -> list[int] | None:
    """The best ``number``, or share ``keep``, in the text's order; None where a rounding error could turn it."""
    if number is None:
        number = math.ceil(Fraction(str(keep)) * len(scores))
    ranked = sorted(range(len(scores)), key=lambda place: -scores[place])
    kept, left = ranked[:number], ranked[number:]
    if left and scores[kept[-1]] - scores[left[0]] < 1e-6 * abs(scores[left[0]]):
        return None
    return sorted(kept)
