"""Each rival's prefill and decoding equal the slow reference, and what reruns choose equals a plain statement.

Models, prompts and settings are drawn at random, everything in float64. What a method says of its work equals what the
reference computed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import Reference
from test_exactness import KINDS, NUM_LAYERS, drawn, exact_model, replay
from tiny_models import random_prompt
from tiny_requests import byte_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.methods.asl import ASL
from lazybench.methods.base import Method, PolicyMethod
from lazybench.methods.claa import CLAA
from lazybench.methods.fastkv import FastKV
from lazybench.methods.first_last import FirstLast
from lazybench.methods.gemfilter import GemFilter
from lazybench.methods.h2o import H2O
from lazybench.methods.lazyllm_evicted import LazyLLMEvicted
from lazybench.methods.oracle import Oracle
from lazybench.methods.pyramid_infer import PyramidInfer
from lazybench.methods.request import Request, Response
from lazybench.methods.snapkv import SnapKV
from lazybench.methods.spec_prefill import SpecPrefill
from lazybench.methods.static_pruning import StaticPruning
from lazybench.methods.taper import Taper
from lazybench.methods.uniprefill import UniPrefill
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.scorers import Given

NEW_TOKENS = 3
SHARES = st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.7, 0.9, 1.0])
DEPTHS = st.sampled_from([0.25, 0.5, 0.75])
WINDOWS, POOLS = st.sampled_from([1, 2, 4]), st.sampled_from([1, 3, 5])

POLICIES: dict[type[PolicyMethod], dict[str, st.SearchStrategy[Any]]] = {
    FastKV: {
        "propagate": SHARES, "retain": SHARES, "depth": DEPTHS, "window": WINDOWS, "pool": POOLS,
    },
    CLAA: {
        "keep": SHARES, "retain": st.none() | SHARES, "depth": DEPTHS, "layers": st.integers(1, 4),
        "first_layers": st.integers(0, 2), "window": WINDOWS, "pool": POOLS,
    },
    ASL: {
        "tokens": st.integers(5, 9), "keep": st.none() | st.sampled_from([0.5, 0.7]), "depth": st.just(0.5),
        "observed": st.just(0.5), "below": st.sampled_from([0.7, 0.95]), "window": WINDOWS, "pool": POOLS,
    },
    UniPrefill: {
        "mass": st.sampled_from([0.3, 0.6, 0.9]), "depths": st.sampled_from([(0.25,), (0.5, 0.75), (0.25, 0.5, 0.75)]),
        "window": WINDOWS, "block": st.integers(1, 4), "first": st.integers(0, 3), "last": st.integers(1, 3),
    },
    PyramidInfer: {
        "keep": st.sampled_from([0.1, 0.5, 0.9]), "recent": st.sampled_from([0.1, 0.2, 0.4]),
        "newest_weight": st.sampled_from([1.0, 1.2]), "first": st.integers(0, 4), "least": st.integers(0, 4),
    },
    SnapKV: {"keep": SHARES, "window": WINDOWS, "pool": POOLS},
    H2O: {"keep": SHARES, "window": WINDOWS, "pool": st.sampled_from([1, 3])},
    Taper: {
        "preset": st.none(), "depths": st.sampled_from([(0.25, 0.5), (0.25, 0.75), (0.5, 0.6)]),
        "keep": st.just((0.5, 0.7)), "window": WINDOWS,
        "chunk": st.integers(1, 4), "first": st.integers(0, 3), "last": st.integers(1, 3),
        "last_share": st.sampled_from([0.0, 0.2]), "look_back": st.integers(1, 3),
        "revive": st.integers(0, 4), "every": st.integers(1, 2),
    },
    LazyLLMEvicted: {
        "pruning": st.sampled_from([PruningSchedule(layers=(0,), keep=(0.5,)), PruningSchedule((0, 2), (0.7, 0.5))]),
        "retain": SHARES, "window": WINDOWS, "pool": POOLS,
    },
    StaticPruning: {"variant": st.just("continue"), "keep": SHARES, "depth": DEPTHS},
}  # fmt: skip


cases = {
    "kind": st.sampled_from(sorted(KINDS)),
    "tokens": st.sampled_from([5, 8, 11, 14, 19]),
    "seed": st.integers(0, 10_000),
}


def run(method: Method, kind: str, prompt: Tensor) -> tuple[Response, Tensor]:
    """The method's answer of ``NEW_TOKENS``, and the (steps, vocabulary) logits of the generation that gave it."""
    model, logits = exact_model(kind, 0), []
    limits = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    hook = model.get_output_embeddings().register_forward_hook(lambda _, __, output: logits.append(output[0, -1]))
    try:
        response = method.run(Request(model, byte_tokenizer(), prompt, limits, seed=0))
    finally:
        hook.remove()
    return response, torch.stack(logits[-NEW_TOKENS:])  # a draft of the model's own came before


def check_policy(method: PolicyMethod, kind: str, tokens: int, seed: int, scored: Given | None = None) -> Reference:
    """Logits, and the tokens that each layer ran in the prefill."""
    model, prompt = exact_model(kind, 0), random_prompt(tokens, seed)
    policy: Policy = method.policy(model.config)
    reference = Reference(model, policy if scored is None else replace(policy, scorer=scored))
    response, logits = run(method, kind, prompt)
    expected = replay(reference, prompt[0].tolist(), response.new_tokens.tolist())
    assume(reference.margin > 1e-6)  # two tokens tie: either may be kept
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
    ran = tuple(len(layer) for layer in reference.computed[0])
    assert response.work.tokens_of_layer_runs == ran
    if policy.before_mlp:
        mlp = list(ran)
        for layer in policy.layers:
            mlp[layer] = ran[layer + 1]
        assert response.work.mlp_tokens_of_layer_runs == tuple(mlp)
    return reference


@pytest.mark.parametrize("kind_of_method", POLICIES, ids=lambda kind: kind.name)
def test_a_method_that_is_a_policy_equals_the_slow_reference(kind_of_method: type[PolicyMethod]) -> None:
    saves = []
    # ranks of a few tokens settle or tie by chance: a longer prompt tells
    lengths = {"tokens": st.sampled_from([14, 19, 24])} if kind_of_method is ASL else {}

    @drawn(24)
    @given(options=st.fixed_dictionaries(POLICIES[kind_of_method]), **{**cases, **lengths})
    def check(options: dict[str, Any], kind: str, tokens: int, seed: int) -> None:
        reference = check_policy(kind_of_method(**options), kind, tokens, seed)
        pruned = any(len(layer) < tokens for layer in reference.computed[0])
        saves.append(pruned or any(head for heads in reference.layers.evicted for head in heads))

    check()
    assert sum(saves) >= 5


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


@drawn(14)
@given(keep=SHARES, lookahead=st.integers(1, 4), chunk=st.integers(1, 4), pool=POOLS, **cases)
def test_spec_prefill_runs_the_chunks_that_its_next_tokens_look_at(
    keep: float, lookahead: int, chunk: int, pool: int, kind: str, tokens: int, seed: int
) -> None:
    prompt = random_prompt(tokens, seed)[0].tolist()
    scores = looked_at(exact_model(kind, 0), prompt, lookahead - 1, pool, with_prompt=True)
    method = SpecPrefill(keep, None, lookahead, chunk, pool)
    check_policy(method, kind, tokens, seed, Given(torch.tensor([scores], dtype=torch.float64)))


@drawn(14)
@given(keep=SHARES, depth=DEPTHS, answer=st.integers(1, 3), pool=POOLS, last=st.integers(1, 3), **cases)
def test_the_oracle_keeps_what_the_answer_looks_at(
    keep: float, depth: float, answer: int, pool: int, last: int, kind: str, tokens: int, seed: int
) -> None:
    prompt = random_prompt(tokens, seed)[0].tolist()
    scores = looked_at(exact_model(kind, 0), prompt, answer, pool, with_prompt=False)
    method = Oracle(keep, depth, answer, pool, last)
    check_policy(method, kind, tokens, seed, Given(torch.tensor([scores], dtype=torch.float64)))


def check_rerun(method: Method, kind: str, tokens: int, seed: int, expected: list[int], probed: int) -> None:
    """The answer is the plain model's to the prompt's tokens at ``expected``, after ``probed`` layers of all."""
    prompt = random_prompt(tokens, seed)
    response, logits = run(method, kind, prompt)
    plain, plain_logits = run(FirstLast(1.0), kind, prompt[:, expected])  # everything of a shorter prompt
    assert torch.equal(response.new_tokens, plain.new_tokens)
    torch.testing.assert_close(logits, plain_logits, rtol=0, atol=1e-9)
    assert response.work.tokens_of_layer_runs == (tokens,) * probed + (len(expected),) * NUM_LAYERS


SEE_ALL = {"sliding window in two layers, biases": (0, 1), "sliding window in every other layer": (1, 3)}


@drawn(14)
@given(number=st.integers(1, 15), keep=st.none() | SHARES, depth=DEPTHS, pool=POOLS, **cases)
def test_gemfilter_runs_again_on_the_best_of_one_layer(
    number: int, keep: float | None, depth: float, pool: int, kind: str, tokens: int, seed: int
) -> None:
    layer = int(depth * NUM_LAYERS)
    whole = SEE_ALL.get(kind, range(NUM_LAYERS))
    if layer not in whole:  # it moves on, or back from where only the last layer would follow
        layer = min((one for one in whole if layer < one < NUM_LAYERS - 1), default=1)
    scores = gemfilter_scores(exact_model(kind, 0), random_prompt(tokens, seed)[0].tolist(), layer, pool)
    expected = kept_positions(scores, number if keep is None else None, keep)
    assume(expected is not None)
    probed = 0 if len(expected) == tokens else layer
    check_rerun(GemFilter(number, keep, depth, pool), kind, tokens, seed, expected, probed)


@drawn(14)
@given(keep=SHARES, depth=DEPTHS, **cases)
def test_static_pruning_runs_again_on_the_best_of_the_first_layers(
    keep: float, depth: float, kind: str, tokens: int, seed: int
) -> None:
    probed = int(depth * NUM_LAYERS)
    scores = attention_of_newest(exact_model(kind, 0), random_prompt(tokens, seed)[0].tolist(), probed)
    expected = kept_positions([*scores[:-1], float("inf")], None, keep)
    assume(expected is not None)
    probed = 0 if len(expected) == tokens else probed - 1  # the last one ends with its attention
    check_rerun(StaticPruning("rerun", keep, depth), kind, tokens, seed, expected, probed)


@drawn(14)
@given(keep=SHARES, first=SHARES, **cases)
def test_first_last_keeps_the_two_ends(keep: float, first: float, kind: str, tokens: int, seed: int) -> None:
    everything = list(range(tokens))
    kept = len(kept_positions([-float(place) for place in everything], None, keep) or [])
    beginning = int(first * kept)
    expected = [place for place in everything if place < beginning or place >= tokens - (kept - beginning)]
    assert len(expected) == kept
    check_rerun(FirstLast(keep, first), kind, tokens, seed, expected, 0)
