"""Where tokens are pruned and how many stay: the schedule, what it refuses, and the published presets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazybench.errors import UserError
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import PRESETS, PruningSchedule


def tokens_per_layer(policy: Policy, num_layers: int, prompt_tokens: int) -> list[int]:
    tokens, counts = prompt_tokens, []
    for layer in range(num_layers):
        counts.append(tokens)
        if layer in policy.layers:
            budget = policy.budget[policy.layers.index(layer)]
            tokens = min(tokens, budget.count(tokens, prompt_tokens, 1))
    return counts


@given(num_layers=st.integers(4, 120))
def test_paper_schedule_fits_every_depth(num_layers):
    schedule = PruningSchedule.paper(num_layers)
    schedule.policy().check_depth(num_layers)
    assert [layer for stage in schedule.stages(num_layers) for layer in stage] == list(range(num_layers))
    for layer, tenths in zip(schedule.layers, (3, 6, 9), strict=True):
        assert layer + 1 == max(1, tenths * num_layers // 10)
    if num_layers == 32:  # figure 7
        assert [stage.stop for stage in schedule.stages(32)] == [9, 19, 28, 32]


@given(num_layers=st.integers(2, 120))
def test_the_authors_schedule_falls_evenly_over_30_to_90_percent_of_the_depth(num_layers):
    schedule = PruningSchedule.preset("authors_linear").build(num_layers)
    schedule.policy().check_depth(num_layers)
    assert schedule.ratio_of == "context"
    assert (schedule.layers[0] + 1, schedule.layers[-1] + 1) == (max(1, 3 * num_layers // 10), 9 * num_layers // 10)
    shares = [tokens / 10_000 for tokens in tokens_per_layer(schedule.policy(), num_layers, 10_000)]
    assert [shares[layer + 1] for layer in schedule.layers] == pytest.approx(list(schedule.keep), abs=1e-4)
    assert schedule.keep[-1] == 0.25
    if num_layers == 32:
        assert schedule.layers == tuple(range(8, 28))
        assert schedule.keep == pytest.approx([0.75 - 0.5 * place / 19 for place in range(20)], abs=1e-4)


def test_a_model_too_shallow_is_refused():
    with pytest.raises(UserError, match=r"31 is out of range for a model of 32 layers.*0 to 30"):
        PruningSchedule((31,), (0.5,)).policy().check_depth(32)
    with pytest.raises(UserError, match="1 layer"):
        PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.7, 0.7)).build(1).policy().check_depth(1)


def test_depths_that_fall_on_one_layer_prune_there_for_all_of_them():
    spec = PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.5, 0.4))
    assert spec.build(2).layers == (0,)
    assert spec.build(2).keep == (pytest.approx(0.14),)
    assert spec.build(3).layers == (0, 1)
    assert spec.build(3).keep == (pytest.approx(0.35), 0.4)
    of_context = PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.5, 0.4), ratio_of="context").build(3)
    assert (of_context.keep, of_context.ratio_of) == ((0.5, 0.4), "context")
    with pytest.raises(UserError, match="2"):
        PruningSchedule(depths=(0.3, 0.6, 0.9), keep=(0.7, 0.5))


def test_explicit_layers_win_over_the_depths_of_a_preset():
    spec = PruningSchedule(layers=(9, 19), depths=(0.3, 0.6, 0.9), keep=(0.5, 0.4))
    assert spec.build(32) == PruningSchedule((9, 19), (0.5, 0.4))


def preset(name: str) -> PruningSchedule:
    return PruningSchedule(**PRESETS[name])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_for_real_depths(name):
    for num_layers in (30, 32, 80):
        preset(name).build(num_layers).policy().check_depth(num_layers)
    assert name != "none" or preset(name).build(32) == PruningSchedule((), ())
