"""Budgets: exact counts where tiny models don't reach. What tiny ones do is shown in test_exactness.py."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.pruning.budgets import Mass, Ratio, share_of


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(percent=st.integers(1, 100), tokens=st.integers(1, 200_000))
def test_rounding_up_counts_as_exact_arithmetic_does(percent, tokens):
    exact = ceil(Fraction(percent, 100) * tokens)
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
