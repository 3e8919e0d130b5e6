"""FLOPs ratios of the rivals: what they say they ran and scored by, against their formulas.

The formulas use ``c(n) = a n + b n^2`` for a layer of ``n`` tokens, written out here from the shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tiny_requests import tiny_request

from lazybench.measure.work import shares_of
from lazybench.methods import Method, build
from lazybench.methods.request import Work

PROMPT, LAYERS = 60, 8
HIDDEN, KV, INTERMEDIATE = 32, 16, 64  # of the tiny Llama: 4 query heads and 2 KV heads of 8


def c(tokens: float, mlp_tokens: float | None = None) -> float:
    """One layer of the tiny Llama."""
    attention, mlp = 2 * (2 * HIDDEN**2 + 2 * HIDDEN * KV), 2 * 3 * HIDDEN * INTERMEDIATE
    return attention * tokens + 2 * HIDDEN * tokens**2 + mlp * (tokens if mlp_tokens is None else mlp_tokens)


def rows(queries: int, keys: int, layers: int = 1) -> float:
    """The query-key products of the newest queries in so many layers, each with the keys up to itself."""
    return layers * sum(2 * HIDDEN * (keys - newer) for newer in range(queries))


def looked(queries: int, layers: int = 1) -> float:
    """What a probe runs of its last layer, its queries, keys and values, and the rows of all that it looks at."""
    return 2 * (HIDDEN**2 + 2 * HIDDEN * KV) * PROMPT + rows(queries, PROMPT, layers)


def continued(after: int, kept: int, scoring: float) -> Callable[[Work], float]:
    return lambda work: after * c(PROMPT) + (LAYERS - after) * c(kept) + scoring


def where_ranks_settled(work: Work) -> float:
    after = work.tokens_of_layer_runs.count(PROMPT)
    assert 3 <= after < LAYERS  # layer 2 is the reference, so it never prunes there
    return after * c(PROMPT) + (LAYERS - after) * c(20) + rows(4, PROMPT, after - 1)  # from layer 1 to where they do


def before_the_mlp(work: Work) -> float:
    runs = work.tokens_of_layer_runs
    assert PROMPT == runs[0] > runs[-1]
    behind = [runs[layer + 1] if layer in (1, 3, 5) else runs[layer] for layer in range(LAYERS)]
    return sum(map(c, runs, behind)) + sum(rows(4, runs[layer]) for layer in (1, 3, 5))


def pyramid(work: Work) -> float:
    runs, recent = [PROMPT], 1 + int(0.2 * PROMPT)
    for layer in range(LAYERS - 1):
        older = runs[-1] - recent
        runs.append(recent + int(((1 - 0.5) * (math.cos(math.pi * layer / LAYERS) + 1) / 2 + 0.5) * older))
    assert work.tokens_of_layer_runs == tuple(runs)
    return sum(map(c, runs)) + sum(rows(recent, keys) for keys in runs[:-1])


def drafted(work: Work) -> float:
    """The draft's prefill and steps (the model's own here), then half of the chunks of 4 tokens."""
    steps = sum(c(PROMPT + step) - c(PROMPT + step - 1) for step in (1, 2, 3))
    read = sum(rows(1, PROMPT + step, LAYERS) for step in range(4))
    return LAYERS * (c(PROMPT) + steps + c(32)) + read


SHORT = {"window": 4, "block": 4, "first": 4, "last": 4}
SELF_DRAFTED = build("spec_prefill", {"keep": 0.5, "lookahead": 4, "chunk": 4})
FORMULAS: list[tuple[Method, Callable[[Work], float]]] = [
    (build("gemfilter", {"tokens": 20}), lambda _: 3 * c(PROMPT) + looked(1) + LAYERS * c(20)),
    (build("fastkv"), continued(4, 12, rows(8, PROMPT, 1 + 4) + rows(8, 12, 4))),  # to prune, and to evict
    (build("claa", {"keep": 0.4}), continued(4, 24, rows(8, PROMPT, 4))),
    (build("asl", {"tokens": 20, "depth": 0.375, "observed": 0.25, "below": 1.0, "window": 4}), where_ranks_settled),
    (build("uniprefill", {"mass": 0.5, "depths": [0.25, 0.5, 0.75], **SHORT}), before_the_mlp),
    (SELF_DRAFTED, drafted),
    (build("pyramid_infer", {"keep": 0.5, "least": 1}), pyramid),
    (build("snapkv", {"window": 4}), lambda _: LAYERS * c(PROMPT) + rows(4, PROMPT, LAYERS)),
    (build("h2o", {"window": 4}), lambda _: LAYERS * c(PROMPT) + rows(PROMPT, PROMPT, LAYERS)),
    (build("oracle", {"keep": 0.25}), continued(4, 15, 0)),
    (build("first_last", {"keep": 0.4}), lambda _: LAYERS * c(24)),
    (build("static_pruning", {"variant": "rerun"}), lambda _: c(PROMPT) + looked(1, 2) + LAYERS * c(30)),
    (build("static_pruning", {"variant": "continue"}), continued(2, 30, rows(1, PROMPT))),
]


@pytest.mark.parametrize(("method", "formula"), FORMULAS, ids=lambda one: getattr(one, "name", ""))
def test_the_flops_ratio_is_the_methods_formula(method: Method, formula: Callable[[Work], float]) -> None:
    request = tiny_request(prompt_tokens=PROMPT, new_tokens=3)
    work = method.run(request).work
    assert shares_of(work, request).flops_ratio == pytest.approx(LAYERS * c(PROMPT) / formula(work))


def test_a_model_that_drafts_for_itself_has_read_the_prompt_once_more() -> None:
    request = tiny_request(prompt_tokens=PROMPT, new_tokens=3)
    work = SELF_DRAFTED.run(request).work
    assert work.prompt_tokens_computed == pytest.approx(1 + 32 / PROMPT)
    assert work.by_stage == pytest.approx((32 / PROMPT,))  # no stage without a layer
