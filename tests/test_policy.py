"""Policies and schedules: bad parts are refused before anything runs; where tokens are pruned, and how many stay."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.methods.taper import DEPTHS, Taper
from lazybench.pruning.budgets import Mass, Ratio, Revival, Tokens, share_of
from lazybench.pruning.places import place
from lazybench.pruning.policy import BEFORE_THE_FIRST, PerHead, Policy
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.scorers import AttentionScorer

REVIVES = Revival(most=4)
policy = partial(Policy, layers=(1,), budget=(Ratio(0.5),))
SETTLES = WhereRanksSettle(observed=2, top=2, below=0.3)


@pytest.mark.parametrize(
    ("made", "parts", "words"),
    [
        (policy, {"layers": (1, 2)}, "must be a tuple, one for each of 2 prunings"),
        (policy, {"budget": Ratio(0.5)}, "budget=Ratio(keep=0.5, of='entered', rounding='up') must be a tuple"),
        (policy, {"scorer": AttentionScorer(products=True), "budget": (Mass(0.5),)}, "scores above 0"),
        (policy, {"revival": REVIVES, "before_mlp": True}, "revival.most=0"),
        (policy, {"revival": REVIVES, "last": 0}, "revival.most=0"),
        (policy, {"revival": REVIVES, "retention": PerHead(AttentionScorer(), Ratio(0.5), 1)}, "revival.most=0"),
        (policy, {"revival": REVIVES, "layers": (BEFORE_THE_FIRST,)}, "before the first layer"),
        (policy, {"revival": REVIVES, "settles": SETTLES}, "decides for each prompt"),
        (policy, {"before_mlp": True, "settles": SETTLES}, "decides for each prompt"),
        (policy, {"last_share": 1.5}, "last_share=1.5"),
        (policy, {"chunk": 0}, "chunk=0"),
        (PruningSchedule, {"layers": [2, 1], "keep": [0.5, 0.5]}, "1 stands after 2"),
        (PruningSchedule, {"layers": [1, 1], "keep": [0.5, 0.5]}, "1 stands after 1"),
        (PruningSchedule, {"layers": [-1], "keep": [0.5]}, "-1"),
        (PruningSchedule, {"layers": [0.5], "keep": [0.5]}, "0.5"),
        (PruningSchedule, {"layers": [1], "keep": [0.0]}, "0.0"),
        (PruningSchedule, {"layers": [1], "keep": [1.5]}, "1.5"),
        (PruningSchedule, {"layers": [1], "keep": [math.nan]}, "nan"),
        (PruningSchedule, {"layers": [1], "keep": ["half"]}, "half"),
        (PruningSchedule, {"layers": [1, 2], "keep": [0.5]}, "2 entries"),
        (PruningSchedule, {"layers": 9, "keep": [0.5]}, "pruning.layers=9 must be a list"),
        (PruningSchedule, {"layers": "9,19", "keep": [0.5]}, "pruning.layers='9,19'"),
        (PruningSchedule, {"depths": [0.3, 1.0], "keep": [0.5, 0.5]}, "1.0"),
        (PruningSchedule, {"depths": [0.6, 0.3], "keep": [0.5, 0.5]}, "rise"),
        (PruningSchedule, {"depths": [0.6], "keep": [0.5, 0.5]}, "1 entries"),
        (PruningSchedule, {"keep": [0.5]}, "pruning=none"),
        (PruningSchedule, {"layers": [1], "keep": [0.5], "ratio_of": "prompt"}, "Known: context, entered, mass"),
        (Taper, {"depths": (0.5,)}, "taper.depths and taper.keep go together"),
        (Taper, {"keep": (0.5,)}, "taper.depths and taper.keep go together"),
        (Taper, {"depths": (0.5,), "keep": (0.5, 0.5)}, "taper.depths has 1 entries"),
        (Taper, {"preset": "fats"}, "did you mean fast"),
        (Taper, {"preset": None}, "one of safe, balanced, fast"),
        (Revival, {"most": 3, "like": "smollm2"}, "leave revival.most out"),
        (Revival, {"like": "gpt2"}, "smollm2"),
        (Tokens, {"number": 0}, "number=0"),
        (Tokens, {"number": 2.0}, "number=2.0"),
        (AttentionScorer, {"window": 0}, "window=0"),
        (AttentionScorer, {"window": 1.5}, "window=1.5"),
        (AttentionScorer, {"pool": 4}, "pool=4"),
        (AttentionScorer, {"pool": 0}, "pool=0"),
        (FallingRatio, {"keep": 0.5, "layer": 4, "layers": 4}, "layers=4"),
        (FallingRatio, {"keep": 0.5, "layer": -1, "layers": 4}, "layer=-1"),
        *((Ratio, {"keep": wrong}, "must be a number") for wrong in (0, -0.1, 1.1, True, "0.5", math.nan)),
        (FallingRatio, {"keep": 1.1, "layer": 0, "layers": 4}, "must be a number"),
        (Mass, {"share": 0}, "must be a number"),
        (policy(layers=(31,)).check_depth, {"num_layers": 32}, "layer 31 is out of range for a model of 32 layers"),
        (policy(layers=(31,)).check_depth, {"num_layers": 32}, "0-based indices 0 to 30"),
        (PruningSchedule.paper(1).policy().check_depth, {"num_layers": 1}, "1 layer"),
    ],
)
def test_bad_parts_and_parts_that_contradict_each_other_are_refused(
    made: Callable[..., Any], parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        made(**parts)


# ---- where tokens are pruned


@given(num_layers=st.integers(4, 120))
def test_paper_schedule_fits_every_depth(num_layers):
    schedule = PruningSchedule.paper(num_layers)
    schedule.policy().check_depth(num_layers)
    assert [layer for stage in schedule.stages(num_layers) for layer in stage] == list(range(num_layers))
    for layer, tenths in zip(schedule.layers, (3, 6, 9), strict=True):
        assert layer + 1 == max(1, tenths * num_layers // 10)
    assert PruningSchedule.preset("none").build(num_layers) == PruningSchedule((), ())
    if num_layers == 32:  # figure 7
        assert [stage.stop for stage in schedule.stages(32)] == [9, 19, 28, 32]


@given(num_layers=st.integers(2, 120))
def test_the_authors_schedule_falls_evenly_over_30_to_90_percent_of_the_depth(num_layers):
    schedule = PruningSchedule.preset("authors_linear").build(num_layers)
    schedule.policy().check_depth(num_layers)
    assert schedule.ratio_of == "context"
    assert (schedule.layers[0] + 1, schedule.layers[-1] + 1) == (max(1, 3 * num_layers // 10), 9 * num_layers // 10)
    counts = [budget.count(10_000, 10_000, 1) / 10_000 for budget in schedule.policy().budget]
    assert counts == pytest.approx(list(schedule.keep), abs=1e-4)
    assert counts == sorted(counts, reverse=True)
    assert schedule.keep[-1] == 0.25
    if num_layers == 32:
        assert schedule.layers == tuple(range(8, 28))
        assert schedule.keep == pytest.approx([0.75 - 0.5 * place / 19 for place in range(20)], abs=1e-4)


def test_depths_that_fall_on_one_layer_prune_there_for_all_of_them():
    spec = PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.5, 0.4))
    assert (spec.build(2).layers, spec.build(2).keep) == ((0,), (pytest.approx(0.14),))
    assert (spec.build(3).layers, spec.build(3).keep) == ((0, 1), (pytest.approx(0.35), 0.4))
    of_context = PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.5, 0.4), ratio_of="context").build(3)
    assert (of_context.keep, of_context.ratio_of) == ((0.5, 0.4), "context")
    named = PruningSchedule(layers=(9, 19), depths=(0.3, 0.6, 0.9), keep=(0.5, 0.4))  # explicit layers win
    assert named.build(32) == PruningSchedule((9, 19), (0.5, 0.4))


GEMMA = Gemma3TextConfig(num_hidden_layers=18)  # full attention in the layers 5, 11 and 17


@pytest.mark.parametrize(
    ("config", "depths", "layers"),
    [
        (LlamaConfig(num_hidden_layers=18), DEPTHS, (1, 3, 6, 8, 11, 13)),
        (MistralConfig(num_hidden_layers=18, sliding_window=4096), DEPTHS, (1, 3, 6, 8, 11, 13)),
        (GEMMA, DEPTHS, (5, 5, 11, 11, 11, 11)),
        (GEMMA, (0.334, 0.667), (5, 11)),
    ],
)
def test_a_share_of_the_depth_falls_on_layers_that_see_the_whole_prompt(config, depths, layers):
    assert tuple(place(depth, config) for depth in depths) == layers
    keep = (0.5,) * len(depths)
    schedule = PruningSchedule(depths=depths, keep=keep).build(config)
    assert (schedule.layers, schedule.keep) == tuple(
        zip(*((layer, 0.5 ** layers.count(layer)) for layer in sorted(set(layers))), strict=True)
    )
    assert Taper(depths=depths, keep=keep).policy(config).layers == schedule.layers


# ---- how many stay


@settings(max_examples=300, derandomize=True, database=None)
@given(percent=st.integers(1, 100), tokens=st.integers(1, 200_000))
def test_rounding_up_counts_as_exact_arithmetic_does(percent, tokens):
    exact = math.ceil(Fraction(percent, 100) * tokens)
    assert share_of(percent / 100, tokens) == exact
    assert Ratio(percent / 100).count(tokens, 200_000, 1) == exact
    assert Ratio(percent / 100, of="context").count(1, tokens, 1) == exact


def test_rounding_down_truncates_the_product_as_published_code_does():
    assert share_of(0.7, 90, "down") == 62  # 63 in exact arithmetic: FastKV's int(90 * 0.7)
    assert Ratio(0.7, rounding="down").count(90, 200, 8) == 62
    assert Ratio(0.2, of="context", rounding="down").count(90, 104, 8) == 20


def test_the_whole_mass_is_every_unit_and_a_mass_of_nothing_one_at_least():
    scores = torch.rand(3, 2000, generator=torch.Generator().manual_seed(0)).sort(dim=1, descending=True).values
    assert Mass(1.0).counts(scores).tolist() == [2000] * 3
    assert Mass(0.5).counts(torch.zeros(1, 3))[0] >= 1
    assert Mass(0.75).counts(torch.tensor([[97.0, 1.0, 1.0, 1.0]])).tolist() == [1]
