"""Where tokens are pruned and how many stay: schedules, the published presets, and layers that see the whole prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

from lazybench.errors import UserError
from lazybench.methods.taper import DEPTHS, Taper
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.places import place
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import PruningSchedule


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
    assert PruningSchedule.preset("none").build(num_layers) == PruningSchedule((), ())
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


def test_a_layer_with_a_window_is_passed_over_unless_it_is_named():
    assert Policy((5, 11), budget=(Ratio(0.5),) * 2, look_back=2).scored([2, 5, 8, 11]) == {2, 5, 8, 11}
    assert Policy((1, 5), budget=(Ratio(0.5),) * 2, look_back=3).scored([5, 11]) == {1, 5}


GEMMA = Gemma3TextConfig(num_hidden_layers=18)  # full attention in the layers 5, 11 and 17
NO_LAYER_SEES_ALL = MistralConfig(num_hidden_layers=18, sliding_window=4096)


@pytest.mark.parametrize(
    ("config", "depths", "layers"),
    [
        (LlamaConfig(num_hidden_layers=18), DEPTHS, (1, 3, 6, 8, 11, 13)),
        (NO_LAYER_SEES_ALL, DEPTHS, (1, 3, 6, 8, 11, 13)),
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
