"""Budgets: exact counts, by every rule."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazybench.errors import UserError
from lazybench.methods.pyramid_infer import FallingRatio
from lazybench.pruning.budgets import Mass, Ratio, Tokens, per_boundary, share_of


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(percent=st.integers(1, 100), tokens=st.integers(1, 200_000))
def test_rounding_up_counts_as_exact_arithmetic_does(percent, tokens):
    assert share_of(percent / 100, tokens) == ceil(Fraction(percent, 100) * tokens)


def test_rounding_down_truncates_the_product_as_published_code_does():
    assert share_of(0.7, 90, "down") == 62  # 63 in exact arithmetic: FastKV's int(90 * 0.7)
    assert Ratio(0.7, rounding="down").count(90, 200, 8) == 62
    assert Ratio(0.2, of="context", rounding="down").count(90, 104, 8) == 20


def test_a_ratio_is_of_what_entered_or_of_the_context():
    assert Ratio(0.5).count(11, 100, 1) == 6
    assert Ratio(0.5, of="context").count(11, 100, 1) == 50
    assert Tokens(7).count(11, 100, 1) == 7


@pytest.mark.parametrize("wrong", [0, -0.1, 1.1, True, "0.5", float("nan")])
def test_shares_outside_zero_to_one_are_refused(wrong):
    for budget in (Ratio, Mass, lambda share: FallingRatio(share, 0, 4)):
        with pytest.raises(UserError, match="must be a number"):
            budget(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True])
def test_numbers_of_tokens_must_be_whole(wrong):
    with pytest.raises(UserError, match="whole number"):
        Tokens(wrong)


def masses(share: float, crossing: bool, *rows: list[float]) -> list[int]:
    return Mass(share, crossing).counts(torch.tensor(rows)).tolist()


def test_a_mass_counts_each_row_with_or_without_the_unit_that_crosses():
    rows = [[4.0, 3.0, 2.0, 1.0], [97.0, 1.0, 1.0, 1.0]]
    assert masses(0.75, True, *rows) == [3, 1]
    assert masses(0.75, False, *rows) == [2, 1]  # the best unit stays though it alone crosses


@pytest.mark.parametrize("crossing", [True, False])
def test_the_whole_mass_is_every_unit(crossing):
    scores = torch.rand(3, 2000, generator=torch.Generator().manual_seed(0)).sort(dim=1, descending=True).values
    assert Mass(1.0, crossing).counts(scores).tolist() == [2000] * 3


def test_a_mass_of_nothing_keeps_one_unit_at_least():
    assert masses(0.5, False, [0.0, 0.0, 0.0])[0] >= 1


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    keep=st.floats(0.01, 1.0),
    layer=st.integers(0, 31),
    entered=st.integers(80, 4000),
    recent=st.integers(1, 79),
    decay=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_a_falling_ratio_spares_the_recent_and_never_goes_below_its_least(keep, layer, entered, recent, decay):
    stay = FallingRatio(keep, layer, 32, decay).count(entered, 5000, recent)
    assert stay == entered or recent + 64 < stay <= entered
    depth = {"cosine": None, "linear": Fraction(32 - layer, 32), "constant": Fraction(0)}[decay]
    if stay < entered and depth is not None:
        share = depth + (1 - depth) * Fraction(keep)
        assert abs(stay - recent - floor(share * (entered - recent))) <= 1  # a hair may lie between the two products


def test_a_falling_ratio_prunes_nothing_in_the_first_layer_and_nothing_of_a_short_prompt():
    assert FallingRatio(0.5, 0, 32).count(3000, 3000, 600) == 3000
    assert FallingRatio(0.5, 0, 32, "constant").count(3000, 3000, 600) == 1800
    assert FallingRatio(0.5, 31, 32).count(60, 60, 13) == 60  # the least is what is there: 47 older tokens


def test_the_shares_multiply_over_the_layers():
    entered = 3000
    for layer in range(4):
        entered = FallingRatio(0.5, layer, 4, "constant", least=0).count(entered, 3000, 0)
    assert entered == 3000 // 2 // 2 // 2 // 2


@pytest.mark.parametrize("wrong", [(0.5, 4, 4), (0.5, -1, 4)])
def test_a_falling_ratio_refuses_a_layer_that_is_not_there(wrong):
    with pytest.raises(UserError):
        FallingRatio(*wrong)


def test_one_budget_serves_all_prunings_or_each_has_its_own():
    assert per_boundary(Tokens(3), 5) == Tokens(3)
    assert per_boundary((Tokens(3), Mass(0.5)), 1) == Mass(0.5)
