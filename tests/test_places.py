"""Which layers see the whole prompt, and where a share of the depth falls."""

from __future__ import annotations

import pytest
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

from lazybench.methods.taper import DEPTHS, Taper
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.places import place
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import PruningSchedule


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
