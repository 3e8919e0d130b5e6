"""What methods that choose tokens beforehand score them by, written out on one token, layer and head at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from reference_layers import PlainLayers
from transformers import PreTrainedModel


class Plain:
    """The plain model's generation, token by token."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers = PlainLayers(model)
        self.tokens = 0

    @torch.no_grad()
    def read(self, ids: list[int]) -> int:
        """Run ``ids``, and give the greedy next token."""
        new = list(range(self.tokens, self.tokens + len(ids)))
        for token, token_id in zip(new, ids, strict=True):
            self.layers.embed(token, token_id)
        self.tokens += len(ids)
        for layer in range(self.layers.num_layers):
            self.layers.compute(layer, new, list(range(self.tokens)))
        return int(self.layers.logits(new[-1]).argmax())

    @torch.no_grad()
    def heads(self, layer: int, query: int, keys: int, products: bool = False) -> list[list[float]]:
        """Each query head's attention of token ``query`` to the first ``keys`` tokens, over these alone."""
        among = list(range(keys))
        return [self.layers.scores(layer, query, head, among, products) for head in range(self.layers.query_heads)]


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
    plain = Plain(model)
    token = plain.read(prompt)
    for _ in range(steps):
        token = plain.read([token])
    first = len(prompt) - 1 if with_prompt else len(prompt)
    by_query = []
    for query in range(first, plain.tokens):
        rows = [
            smoothed(row, pool)
            for layer in range(plain.layers.num_layers)
            for row in plain.heads(layer, query, len(prompt))
        ]
        by_query.append([max(column) for column in zip(*rows, strict=True)])
    return [sum(column) / len(by_query) for column in zip(*by_query, strict=True)]


def gemfilter_scores(model: PreTrainedModel, prompt: list[int], layer: int, pool: int) -> list[float]:
    """The last token's raw products with every key, summed over heads, smoothed."""
    plain = Plain(model)
    plain.read(prompt)
    rows = plain.heads(layer, len(prompt) - 1, len(prompt), products=True)
    return smoothed([sum(column) for column in zip(*rows, strict=True)], pool)


def attention_of_newest(model: PreTrainedModel, prompt: list[int], layers: int) -> list[float]:
    """Static pruning's: the last token's attention, mean over heads and over the first ``layers``."""
    plain = Plain(model)
    plain.read(prompt)
    rows = [row for layer in range(layers) for row in plain.heads(layer, len(prompt) - 1, len(prompt))]
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
