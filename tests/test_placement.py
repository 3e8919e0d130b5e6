"""Where tokens are pruned: at given layers, or where the ranks have settled."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

from lazybench.methods.asl import WhereRanksSettle, descending_ranks, rank_variance
from lazybench.methods.taper import DEPTHS, Taper
from lazybench.pruning.places import place
from lazybench.pruning.policy import At
from lazybench.pruning.schedule import PruningSchedule


def test_given_layers_prune_whatever_the_prompt():
    placement = At((1, 4))
    decide = placement.begin()
    assert [layer for layer in range(6) if decide(layer, torch.zeros(1, 3))] == [1, 4]
    assert placement.fixed == (1, 4)


def test_the_layers_looked_back_on_are_scored():
    assert At((1, 4)).scored(1) == {1, 4}
    assert At((1, 4)).scored(3) == {0, 1, 2, 3, 4}
    assert At((-1,)).scored(4) == frozenset()  # before the first layer nothing is attended to
    assert At((5, 11)).scored(2, [2, 5, 8, 11]) == {2, 5, 8, 11}  # a layer with a window is passed over
    assert At((1, 5)).scored(3, [5, 11]) == {1, 5}  # where a window is named, it is looked at all the same


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
    schedule = PruningSchedule(depths=depths, keep=keep).resolved(config)
    assert (schedule.layers, schedule.keep) == tuple(
        zip(*((layer, 0.5 ** layers.count(layer)) for layer in sorted(set(layers))), strict=True)
    )
    assert Taper(depths=depths, keep=keep).policy(config).placement.fixed == schedule.layers


def test_ranks_fall_with_the_score():
    assert descending_ranks(torch.tensor([0.1, 0.9, 0.5])).tolist() == [3, 1, 2]


def test_equal_rankings_have_no_variance_and_it_does_not_depend_on_the_tokens_order():
    ranks = torch.stack([torch.arange(1.0, 9.0)] * 3).double()
    assert rank_variance(ranks, 3) == 0.0
    generator = torch.Generator().manual_seed(0)
    ranks = torch.stack([torch.randperm(8, generator=generator) + 1.0 for _ in range(3)]).double()
    order = torch.randperm(8, generator=generator)
    assert abs(rank_variance(ranks, 3) - rank_variance(ranks[:, order], 3)) < 1e-12


def decisions(rows: list[list[float]], **settings: int | float) -> list[int]:
    placement = WhereRanksSettle(**settings)  # type: ignore[arg-type]
    decide = placement.begin()
    scored = placement.scored(1)
    return [layer for layer, row in enumerate(rows) if layer in scored and decide(layer, torch.tensor([row]))]


RISING, FALLING = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]


def test_it_prunes_once_at_the_first_settled_layer():
    rows = [RISING, FALLING, RISING, RISING, RISING, RISING]
    assert decisions(rows, first=1, observed=2, top=2, below=0.3, last=5) == [3]


def test_it_prunes_nothing_where_the_ranks_never_settle():
    assert decisions([RISING, FALLING] * 3, first=1, observed=2, top=2, below=0.3, last=5) == []


def test_it_prunes_nothing_after_its_last_layer():
    rows = [RISING, FALLING, RISING, RISING]
    assert decisions(rows, first=1, observed=2, top=2, below=0.3, last=2) == []


def test_a_prompt_that_is_settled_from_the_start_is_never_below_its_own_reference():
    assert decisions([RISING] * 6, first=1, observed=2, top=2, below=0.3, last=5) == []


def test_the_first_layer_compares_as_many_layers_as_the_others():
    placement = WhereRanksSettle(first=3, observed=3, top=2, below=0.3, last=6)
    assert list(placement.scored(1)) == [1, 2, 3, 4, 5, 6]
    assert placement.fixed is None


def test_each_prefill_decides_anew():
    placement = WhereRanksSettle(first=1, observed=2, top=2, below=0.3, last=5)
    for _ in range(2):
        decide = placement.begin()
        rows = [RISING, FALLING, RISING, RISING]
        assert [decide(layer, torch.tensor([row])) for layer, row in enumerate(rows)] == [False, False, False, True]
