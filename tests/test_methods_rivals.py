"""Each rival's prefill and decoding equal the slow reference, and what reruns choose equals a plain statement.

Models, prompts and settings are drawn at random, everything in float64. What a method says of its work equals what the
reference computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

from lazybench.methods import Method, build
from lazybench.methods.request import Request, Response
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import Given

NEW_TOKENS = 3
SHARES = st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.7, 0.9, 1.0])
DEPTHS = st.sampled_from([0.25, 0.5, 0.75])
WINDOWS, POOLS = st.sampled_from([1, 2, 4]), st.sampled_from([1, 3, 5])
SCHEDULES = [{"layers": [0], "keep": [0.5]}, {"layers": [0, 2], "keep": [0.7, 0.5]}]
Options = dict[str, st.SearchStrategy[Any]]

POLICIES: dict[str, Options] = {
    "fastkv": {
        "propagate": SHARES, "retain": SHARES, "depth": DEPTHS, "window": WINDOWS, "pool": POOLS,
    },
    "claa": {
        "keep": SHARES, "retain": st.none() | SHARES, "depth": DEPTHS, "layers": st.integers(1, 4),
        "first_layers": st.integers(0, 2), "window": WINDOWS, "pool": POOLS,
    },
    "asl": {
        "tokens": st.integers(5, 9), "keep": st.none() | st.sampled_from([0.5, 0.7]), "depth": st.just(0.5),
        "observed": st.just(0.5), "below": st.sampled_from([0.7, 0.95]), "window": WINDOWS, "pool": POOLS,
    },
    "dash": {"keep": SHARES, "depth": DEPTHS},
    "uniprefill": {
        "mass": st.sampled_from([0.3, 0.6, 0.9]), "depths": st.sampled_from([(0.25,), (0.5, 0.75), (0.25, 0.5, 0.75)]),
        "window": WINDOWS, "block": st.integers(1, 4), "first": st.integers(0, 3), "last": st.integers(1, 3),
    },
    "pyramid_infer": {
        "keep": st.sampled_from([0.1, 0.5, 0.9]), "recent": st.sampled_from([0.1, 0.2, 0.4]),
        "newest_weight": st.sampled_from([1.0, 1.2]), "first": st.integers(0, 4), "least": st.integers(0, 4),
    },
    "snapkv": {"keep": SHARES, "window": WINDOWS, "pool": POOLS},
    "h2o": {"keep": SHARES, "window": WINDOWS, "pool": st.sampled_from([1, 3])},
    "taper": {
        "depths": st.sampled_from([(0.25, 0.5), (0.25, 0.75), (0.5, 0.6)]), "keep": st.just((0.5, 0.7)),
        "window": WINDOWS, "chunk": st.integers(1, 4), "first": st.integers(0, 3), "last": st.integers(1, 3),
        "last_share": st.sampled_from([0.0, 0.2]), "look_back": st.integers(1, 3),
        "revive": st.integers(0, 4), "every": st.integers(1, 2),
    },
    "lazyllm_evicted": {
        "pruning": st.sampled_from(SCHEDULES), "retain": SHARES, "window": WINDOWS, "pool": POOLS,
    },
    "static_pruning": {"variant": st.just("continue"), "keep": SHARES, "depth": DEPTHS},
    "spec_prefill": {"keep": SHARES, "lookahead": st.integers(1, 4), "chunk": st.integers(1, 4), "pool": POOLS},
    "oracle": {
        "keep": SHARES, "depth": DEPTHS, "answer_tokens": st.integers(1, 3), "pool": POOLS, "last": st.integers(1, 3),
    },
}  # fmt: skip


CASES = {
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


@pytest.mark.parametrize("name", POLICIES)
def test_a_method_that_is_a_policy_equals_the_slow_reference(name: str) -> None:
    """Logits, and the tokens that each layer ran in the prefill."""
    saves = []
    # ranks of a few tokens settle or tie by chance: a longer prompt tells
    lengths = {"tokens": st.sampled_from([14, 19, 24])} if name == "asl" else {}

    @drawn(24)
    @given(options=st.fixed_dictionaries(POLICIES[name]), **{**CASES, **lengths})
    def check(options: dict[str, Any], kind: str, tokens: int, seed: int) -> None:
        method, model, prompt = build(name, options), exact_model(kind, 0), random_prompt(tokens, seed)
        policy: Policy = method.policy(model.config)
        scores = looked_at(model, prompt[0].tolist(), name, options)
        reference = Reference(model, policy if scores is None else replace(policy, scorer=scores))
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
        saves.append(min(ran) < tokens or any(head for heads in reference.layers.evicted for head in heads))

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


def looked_at(model: PreTrainedModel, prompt: list[int], name: str, options: dict[str, Any]) -> Given | None:
    """SpecPrefill's and the oracle's: per query the maximum over layers and heads, then the mean over queries.

    The queries are the tokens that come next; SpecPrefill's first one is the prompt's last token.
    """
    if name not in ("spec_prefill", "oracle"):
        return None
    read = plain(model, prompt, options["answer_tokens"] if name == "oracle" else options["lookahead"] - 1)
    by_query = []
    for query in range(len(prompt) - (name == "spec_prefill"), read.tokens):
        rows = [
            smoothed(row, options["pool"])
            for layer in range(read.layers.num_layers)
            for row in heads(read, layer, query, len(prompt))
        ]
        by_query.append([max(column) for column in zip(*rows, strict=True)])
    scores = [sum(column) / len(by_query) for column in zip(*by_query, strict=True)]
    return Given(torch.tensor([scores], dtype=torch.float64))


# ---- methods that run again: which positions they keep, and how many layers of the whole prompt they ran before


def kept_positions(scores: list[float], number: int | None, keep: float | None) -> list[int] | None:
    """The best ``number``, or share ``keep``, in the text's order; None where a rounding error could turn it."""
    if number is None:
        number = math.ceil(Fraction(str(keep)) * len(scores))
    ranked = sorted(range(len(scores)), key=lambda place: -scores[place])
    kept, left = ranked[:number], ranked[number:]
    if left and scores[kept[-1]] - scores[left[0]] < 1e-6 * abs(scores[left[0]]):
        return None
    return sorted(kept)


Kept = tuple[list[int] | None, int]
SEE_ALL = {"sliding window in two layers, biases": (0, 1), "sliding window in every other layer": (1, 3)}


def best_of_one_layer(kind: str, prompt: list[int], tokens: int, keep: float | None, depth: float, pool: int) -> Kept:
    """GemFilter's: the last token's raw products with every key, summed over heads, smoothed."""
    layer = int(depth * NUM_LAYERS)
    whole = SEE_ALL.get(kind, range(NUM_LAYERS))
    if layer not in whole:  # it moves on, or back from where only the last layer would follow
        layer = min((one for one in whole if layer < one < NUM_LAYERS - 1), default=1)
    rows = heads(plain(exact_model(kind, 0), prompt), layer, len(prompt) - 1, len(prompt), products=True)
    scores = smoothed([sum(column) for column in zip(*rows, strict=True)], pool)
    return kept_positions(scores, tokens if keep is None else None, keep), layer


def best_of_the_first_layers(kind: str, prompt: list[int], variant: str, keep: float, depth: float) -> Kept:
    """Static pruning's: the last token's attention, mean over heads and layers; itself always."""
    layers, read = int(depth * NUM_LAYERS), plain(exact_model(kind, 0), prompt)
    rows = [row for layer in range(layers) for row in heads(read, layer, len(prompt) - 1, len(prompt))]
    scores = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return kept_positions([*scores[:-1], math.inf], None, keep), layers - 1  # the last one ends with its attention


def best_chunks(kind: str, prompt: list[int], renumber: bool, keep: float, chunk: int, **looks: int) -> Kept:
    """SpecPrefill's, renumbered: by the chunks' mean scores."""
    scores = looked_at(exact_model(kind, 0), prompt, "spec_prefill", looks).scores[0].tolist()
    means = [sum(part) / len(part) for part in (scores[at : at + chunk] for at in range(0, len(prompt), chunk))]
    best = kept_positions(means, None, keep)
    return best and [place for place in range(len(prompt)) if place // chunk in best], 0


def two_ends(kind: str, prompt: list[int], keep: float, first: float) -> Kept:
    kept = math.ceil(Fraction(str(keep)) * len(prompt))
    beginning = int(first * kept)
    return [place for place in range(len(prompt)) if not beginning <= place < len(prompt) - (kept - beginning)], 0


RERUNS: dict[str, tuple[Callable[..., Kept], Options]] = {
    "gemfilter": (
        best_of_one_layer,
        {"tokens": st.integers(1, 15), "keep": st.none() | SHARES, "depth": DEPTHS, "pool": POOLS},
    ),
    "static_pruning": (best_of_the_first_layers, {"variant": st.just("rerun"), "keep": SHARES, "depth": DEPTHS}),
    "spec_prefill": (best_chunks, {"renumber": st.just(True), **POLICIES["spec_prefill"]}),
    "first_last": (two_ends, {"keep": SHARES, "first": SHARES}),
}


@pytest.mark.parametrize("name", RERUNS)
def test_a_method_that_runs_again_answers_as_the_plain_model_does_to_what_it_keeps(name: str) -> None:
    statement, options = RERUNS[name]

    @drawn(14)
    @given(options=st.fixed_dictionaries(options), **CASES)
    def check(options: dict[str, Any], kind: str, tokens: int, seed: int) -> None:
        prompt = random_prompt(tokens, seed)
        kept, before = statement(kind, prompt[0].tolist(), **options)
        assume(kept is not None)
        response, logits = run(build(name, options), kind, prompt)
        plain, plain_logits = run(build("baseline"), kind, prompt[:, kept])
        assert torch.equal(response.new_tokens, plain.new_tokens)
        torch.testing.assert_close(logits, plain_logits, rtol=0, atol=1e-9)
        before = 0 if len(kept) == tokens else before
        assert response.work.tokens_of_layer_runs == (tokens,) * before + (len(kept),) * NUM_LAYERS

    check()
