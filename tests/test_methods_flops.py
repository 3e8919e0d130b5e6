"""FLOPs: of a prefill, a probe and a mixture of experts they are what torch counts; the rivals' ratios their formulas.

The formulas use ``c(n) = a n + b n^2`` for a layer of ``n`` tokens, written out here from the shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from test_families_sweep import build
from tiny_requests import tiny_request
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from lazybench.measure.work import shares_of
from lazybench.methods import Method
from lazybench.methods import build as method
from lazybench.methods.request import Work
from lazybench.methods.running import probe_layers
from lazybench.models.flops import attention_width, full_prefill_flops, prefill_flops, projections_flops
from lazybench.pruning.layers import find_layers

PLAIN = ("llama", "phi", "falcon", "gpt2")
EXPERTS = ("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "jetmoe", "dbrx", "aria_text", "llama4_text")


@pytest.mark.parametrize("family", [*PLAIN, *EXPERTS, "gemma4_text"])
def test_torch_counts_the_same(family: str) -> None:
    """Experts in one tensor, flat (DBRX) or in the attention too (JetMoE), shared ones, and Llama 4's, which all run.

    And of Gemma 4, whose layers differ. Torch counts full products where the causal half is counted here.
    """
    tokens, model = 20, build(family).requires_grad_(False)
    model.set_experts_implementation("eager")
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(3, tokens + 3)[None])
    config, (_, layers) = model.config, find_layers(model)
    prefix = next(f"{type(model).__name__}.{name}." for name, module in model.named_modules() if module is layers)
    totals = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    half = 2 * attention_width(config) * tokens**2
    assert full_prefill_flops(config, tokens) == sum(totals[f"{prefix}{i}"] - half for i in range(len(layers)))
    if family in PLAIN:  # attention and MLP apart
        layer, mlp = totals[f"{prefix}0"], totals[f"{prefix}0.mlp"]
        assert prefill_flops(config, [tokens], [0]) == layer - mlp - half
        assert prefill_flops(config, [tokens, tokens], [tokens, 5]) == 2 * (layer - half) - mlp * (tokens - 5) / tokens


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2", "mixtral", "deepseek_v2", "jetmoe"])
def test_torch_counts_the_same_of_a_probe(family: str) -> None:
    """A first layer that ends with its queries, keys and values, and the row that the last query is scored by."""
    tokens, model = 20, build(family).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        _, rows = probe_layers(model, torch.arange(3, tokens + 3)[None], [0])
    assert counter.get_total_flops() == projections_flops(model.config, tokens) + rows


def test_counting_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    prefill_flops(LlamaConfig(hidden_size=56, num_attention_heads=4), [4])
    assert torch.equal(torch.get_rng_state(), before)


# ---- what the rivals say they ran and scored by


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
SELF_DRAFTED = method("spec_prefill", {"keep": 0.5, "lookahead": 4, "chunk": 4})
FORMULAS: list[tuple[Method, Callable[[Work], float]]] = [
    (method("gemfilter", {"tokens": 20}), lambda _: 3 * c(PROMPT) + looked(1) + LAYERS * c(20)),
    (method("fastkv"), continued(4, 12, rows(8, PROMPT, 1 + 4) + rows(8, 12, 4))),  # to prune, and to evict
    (method("claa", {"keep": 0.4}), continued(4, 24, rows(8, PROMPT, 4))),
    (method("asl", {"tokens": 20, "depth": 0.375, "observed": 0.25, "below": 1.0, "window": 4}), where_ranks_settled),
    (method("uniprefill", {"mass": 0.5, "depths": [0.25, 0.5, 0.75], **SHORT}), before_the_mlp),
    (SELF_DRAFTED, drafted),
    (method("pyramid_infer", {"keep": 0.5, "least": 1}), pyramid),
    (method("snapkv", {"window": 4}), lambda _: LAYERS * c(PROMPT) + rows(4, PROMPT, LAYERS)),
    (method("h2o", {"window": 4}), lambda _: LAYERS * c(PROMPT) + rows(PROMPT, PROMPT, LAYERS)),
    (method("oracle", {"keep": 0.25}), continued(4, 15, 0)),
    (method("first_last", {"keep": 0.4}), lambda _: LAYERS * c(24)),
    (method("static_pruning", {"variant": "rerun"}), lambda _: c(PROMPT) + looked(1, 2) + LAYERS * c(30)),
    (method("static_pruning", {"variant": "continue"}), continued(2, 30, rows(1, PROMPT))),
]


@pytest.mark.parametrize(("rival", "formula"), FORMULAS, ids=lambda one: getattr(one, "name", ""))
def test_the_flops_ratio_is_the_methods_formula(rival: Method, formula: Callable[[Work], float]) -> None:
    request = tiny_request(prompt_tokens=PROMPT, new_tokens=3)
    work = rival.run(request).work
    assert shares_of(work, request).flops_ratio == pytest.approx(LAYERS * c(PROMPT) / formula(work))


def test_a_model_that_drafts_for_itself_has_read_the_prompt_once_more() -> None:
    request = tiny_request(prompt_tokens=PROMPT, new_tokens=3)
    work = SELF_DRAFTED.run(request).work
    assert work.prompt_tokens_computed == pytest.approx(1 + 32 / PROMPT)
    assert work.by_stage == pytest.approx((32 / PROMPT,))  # no stage without a layer
