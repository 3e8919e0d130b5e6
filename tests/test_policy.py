"""The parts of a policy refuse bad values, and each other, before anything runs; exact counts; where ranks settle."""

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

from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.methods.taper import Taper
from lazybench.pruning.budgets import Mass, Ratio, Revival, Tokens, share_of
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
    ],
)
def test_bad_parts_and_parts_that_contradict_each_other_are_refused(
    made: Callable[..., Any], parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        made(**parts)


RISING, FALLING = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "settled_at"),
    [
        ([RISING, FALLING, RISING, RISING], 3),
        ([RISING, FALLING] * 3, None),  # the ranks never settle
        ([RISING] * 6, None),  # settled from the start: never below its own reference
    ],
)
def test_each_prompt_settles_at_its_own_layer(rows: list[list[float]], settled_at: int | None) -> None:
    for _ in range(2):  # each prefill decides anew
        settled = SETTLES()
        assert next((at for at, row in enumerate(rows) if settled(torch.tensor([row]))), None) == settled_at


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


def test_a_falling_ratio_spares_the_recent_and_prunes_nothing_of_a_short_prompt():
    assert FallingRatio(0.5, 0, 32).count(3000, 3000, 600) == 3000  # nor in the first layer
    assert FallingRatio(0.5, 31, 32).count(60, 60, 13) == 60  # the least is what is there: 47 older tokens
