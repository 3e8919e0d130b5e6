"""Policies drawn at random, over every field of every part."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from lazybench.methods.asl import WhereRanksSettle
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.pruning.budgets import NEVER, Budget, Mass, Ratio, Revival, Tokens
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer, Given, OutputNorm, Scorer

SHARES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0)


def often(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """The usual value half of the time."""
    return st.sampled_from([usual] * len(others) + list(others))


@st.composite
def attention_scorers(draw: st.DrawFn, probabilities: bool = False) -> AttentionScorer:
    """``probabilities``: not products, which can be negative; a budget by mass needs scores above 0."""
    return AttentionScorer(
        window=draw(st.sampled_from([1, 2, 4])),
        window_share=draw(often(0.0, 0.2)),
        newest_weight=draw(often(1.0, 1.5)),
        products=not probabilities and draw(often(False, True, False)),
        own_columns=draw(st.booleans()),
        pool=draw(st.sampled_from([1, 3, 5])),
        heads=draw(st.sampled_from(["mean", "max"])),
    )


def given_scores(tokens: int, seed: int) -> Given:
    return Given(torch.rand(1, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@st.composite
def counts(draw: st.DrawFn, layer: int, layers: int) -> Budget:
    budgets = [
        Ratio(draw(st.sampled_from(SHARES)), draw(often("entered", "context")), draw(often("up", "down"))),
        Tokens(draw(st.integers(1, 12))),
        FallingRatio(draw(st.sampled_from(SHARES)), max(layer, 0), layers, least=draw(st.integers(0, 2))),
    ]
    return draw(st.sampled_from(budgets))


@st.composite
def parts(draw: st.DrawFn, prompt_tokens: int, layers: int, decoding: bool = False) -> dict[str, Any]:
    """Scorer, placement, budgets and units, as any policy may have them.

    ``decoding``: decoding steps choose too, where given scores, which generated tokens lack, have no mass.
    """
    by_mass = draw(often(False, False, True))
    scorer: Scorer = draw(attention_scorers(probabilities=by_mass))
    earliest = 0
    if draw(often(False, False, True)) and not (by_mass and decoding):
        scorer, earliest = given_scores(prompt_tokens, draw(st.integers(0, 99))), 0 if decoding else -1
        if not decoding and draw(st.booleans()):
            scorer, earliest = OutputNorm(), 0
    at = sorted(draw(st.sets(st.integers(earliest, layers - 2), min_size=1, max_size=3)))
    shares = st.sampled_from([0.3, 0.5, 0.8, 0.95])
    budget = [Mass(draw(shares)) if by_mass else draw(counts(layer, layers)) for layer in at]
    return {
        "layers": tuple(at),
        "scorer": scorer,
        "budget": tuple(budget),
        "first": draw(often(0, 1, 4)),
        "last": draw(st.sampled_from([1, 1, 2, 4])),
        "last_share": draw(often(0.0, 0.2)),
        "chunk": draw(often(1, 2, 3)),
        "chunk_score": draw(st.sampled_from(["sum", "mean"])),
        "look_back": draw(often(1, 2, 3)),
        "over_layers": draw(st.sampled_from(["max", "mean"])),
    }


@st.composite
def retentions(draw: st.DrawFn, layers: int) -> PerHead:
    last = draw(st.integers(1, 4))
    budget = draw(counts(0, layers))
    return PerHead(draw(attention_scorers()), budget, last, first_layers=draw(often(0, 1, 2)))


@st.composite
def pruned_once(draw: st.DrawFn, prompt_tokens: int, layers: int) -> Policy:
    """Policies that choose in the prefill alone."""
    fields = draw(parts(prompt_tokens, layers))
    return Policy(
        **{**fields, "last": draw(st.sampled_from([0, fields["last"]]))},
        before_mlp=draw(st.booleans()),
        revival=NEVER,
        retention=draw(st.none() | retentions(layers)),
    )


@st.composite
def pruned_where_ranks_settle(draw: st.DrawFn, prompt_tokens: int, layers: int) -> Policy:
    observed = draw(st.integers(2, layers - 2))
    first = draw(st.integers(observed - 1, layers - 3))
    fields = {
        **draw(parts(prompt_tokens, layers)),
        "layers": tuple(range(first - observed + 1, layers - 1)),
        "scorer": draw(attention_scorers()),
        "budget": (draw(counts(first, layers)),),
        "settles": WhereRanksSettle(observed, draw(st.integers(1, 4)), draw(st.sampled_from([0.6, 0.9]))),
    }
    return Policy(**fields, retention=draw(st.none() | retentions(layers)))


@st.composite
def revived(draw: st.DrawFn, prompt_tokens: int, layers: int) -> Policy:
    """Policies whose decoding steps choose anew and bring tokens back."""
    attend = draw(st.sampled_from(["selected", "computed"]))
    most = draw(st.sampled_from([None, 1, 2, 4]))
    fields = draw(parts(prompt_tokens, layers, decoding=True))
    return Policy(**fields, revival=Revival(most, attend, every=draw(often(1, 2, 3))))
