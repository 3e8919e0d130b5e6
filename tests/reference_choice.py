"""Scores, budgets and choices of a policy as plainly as they can be written: dicts, lists and floats.

It reads the fields of a policy's parts, calls none of their methods, and uses no tensor at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from lazybench.methods.asl import WhereRanksSettle
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.pruning.budgets import Budget, Mass, Ratio, Tokens
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import AttentionScorer

Scores = dict[int, float]  # by token


@dataclass
class Margin:
    """How near a decision came to falling otherwise: a rounding error may turn it where this is tiny.

    Distances are relative. Scores that may be negative cancel out in sums, so theirs is relative to ``scale`` at least.
    """

    scale: float = 0.0
    smallest: float = math.inf

    def between(self, one: float, other: float) -> None:
        if one == other:
            self.smallest = 0.0
        elif math.isfinite(one - other):
            self.smallest = min(self.smallest, abs(one - other) / max(abs(one), abs(other), self.scale))


# ---- scores


def score_of_head(scorer: AttentionScorer, rows: list[Scores], queries: list[int], tokens: list[int]) -> Scores:
    """One query head's: ``rows`` (one per query, oldest first) summed with their weights, then pooled."""
    total = dict.fromkeys(tokens, 0.0)
    for number, row in enumerate(rows):
        rise = number / (len(rows) - 1) if len(rows) > 1 else 0.0
        for token, value in row.items():
            total[token] += value * (1.0 + (scorer.newest_weight - 1.0) * rise)
    counted = [token for token in tokens if scorer.own_columns or token < queries[0]]
    pooled = dict.fromkeys(tokens, 0.0)
    half = scorer.pool // 2
    for place, token in enumerate(counted):
        near = [total[other] for other in counted[max(0, place - half) : place + half + 1]]
        pooled[token] = sum(near) / scorer.pool
    return pooled


def score_of_layer(scorer: AttentionScorer, heads: list[Scores]) -> Scores:
    """The mean over query heads, or the highest of them."""
    of_token = {token: [head[token] for head in heads] for token in heads[0]}
    if scorer.heads == "max":
        return {token: max(values) for token, values in of_token.items()}
    return {token: sum(values) / len(values) for token, values in of_token.items()}


def over_layers(policy: Policy, layers: list[Scores], tokens: list[int]) -> Scores:
    """Several layers' scores, for the tokens that the last of them used."""
    reduced = {}
    for token in tokens:
        values = [layer[token] for layer in layers]
        reduced[token] = max(values) if policy.over_layers == "max" else sum(values) / len(values)
    return reduced


# ---- how many


def count_of(budget: Budget, entered: int, context: int, recent: int) -> int:
    if isinstance(budget, Ratio):
        base = entered if budget.of == "entered" else context
        return math.ceil(Fraction(str(budget.keep)) * base) if budget.rounding == "up" else int(budget.keep * base)
    if isinstance(budget, FallingRatio):
        p, older = budget.keep, entered - recent
        ratio = (1 - p) * (math.cos(math.pi * budget.layer / budget.layers) + 1) / 2 + p
        stay = int(ratio * older)
        return entered if stay <= min(budget.least, context - recent) else stay + recent
    assert isinstance(budget, Tokens)
    return budget.number


# ---- which


def best(score: Scores, tokens: list[int], count: int, margin: Margin) -> list[int]:
    """The ``count`` best of ``tokens``."""
    ranked = sorted(tokens, key=lambda token: -score[token])
    kept, left = ranked[:count], ranked[count:]
    if kept and left:
        margin.between(score[kept[-1]], score[left[0]])
    return kept


def choose(
    policy: Policy,
    budget: Budget | Mass,
    score: Scores,
    tokens: list[int],
    total: int,
    prompt_tokens: int,
    margin: Margin,
) -> list[int]:
    """The tokens that one pruning lets through, in the text's order.

    Args:
        tokens: those that entered the pruning layer.
        total: tokens so far, of which the first ``prompt_tokens`` are the prompt's.
    """
    recent = policy.last + (int(policy.last_share * total) if total == prompt_tokens else 0)
    always = {token for token in tokens if token < policy.first or token >= total - recent}
    if policy.chunk > 1 or isinstance(budget, Mass):
        return sorted(always | set(_in_chunks(policy, budget, score, tokens, total, margin)))
    count = count_of(budget, len(tokens), total, recent)
    count = min(max(count, 1, len(always)), len(tokens))
    rest = [token for token in tokens if token not in always]
    return sorted([*always, *best(score, rest, count - len(always), margin)])


def _in_chunks(
    policy: Policy, budget: Budget | Mass, score: Scores, tokens: list[int], total: int, margin: Margin
) -> list[int]:
    """The tokens of the best chunks."""
    chunks = [tokens[start : start + policy.chunk] for start in range(0, len(tokens), policy.chunk)]
    values = {}
    for number, chunk in enumerate(chunks):
        values[number] = sum(score[token] for token in chunk)
        if policy.chunk_score == "mean":
            values[number] /= len(chunk)
    if isinstance(budget, Mass):
        count = _within_mass(budget, sorted(values.values(), reverse=True), margin)
    else:
        count = max(1, count_of(budget, len(chunks), math.ceil(total / policy.chunk), 0))
    return [token for number in best(values, list(values), count, margin) for token in chunks[number]]


def _within_mass(budget: Mass, values: Sequence[float], margin: Margin) -> int:
    if budget.share == 1.0:
        return len(values)
    before, count, total = 0.0, 0, sum(values) or 1.0
    for value in values:
        share = value / total
        margin.smallest = min(margin.smallest, abs(before - budget.share))
        count += before <= budget.share
        before += share
    return max(1, count)


# ---- where


def rank_variance(settles: WhereRanksSettle, layers: list[Scores], margin: Margin) -> float:
    """How much the ranks of the best tokens differ between the latest layers."""
    ranks = []
    union = set()
    top = settles.top
    if settles.share is not None:
        top = max(1, math.ceil(Fraction(str(settles.share)) * len(layers[-1])) - settles.top)
    for score in layers[-settles.observed :]:
        ranked = sorted(score, key=lambda token: -score[token])
        ranks.append({token: place + 1 for place, token in enumerate(ranked)})
        union |= set(ranked[:top])
    for score in layers[-settles.observed :]:
        ranked = sorted(score.values(), reverse=True)
        for higher, lower in pairwise(ranked):
            if higher or lower:
                margin.between(higher, lower)
        if len(score) > top and ranked[top - 1] == 0:
            margin.smallest = 0.0  # tokens without a score are among the best: their ranks are arbitrary
    squares = []
    for token in union:
        mean = sum(rank[token] for rank in ranks) / len(ranks)
        squares += [(rank[token] - mean) ** 2 for rank in ranks]
    return sum(squares) / len(squares)
