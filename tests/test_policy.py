"""A policy refuses parts that contradict each other, in one line, before anything runs; where ranks settle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.pruning.budgets import Mass, Ratio, Revival
from lazybench.pruning.policy import BEFORE_THE_FIRST, PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer

REVIVES = Revival(most=4)
SETTLES = WhereRanksSettle(observed=2, top=2, below=0.3)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"layers": (1, 2)}, "must be a tuple, one for each of 2 prunings"),
        ({"budget": Ratio(0.5)}, "budget=Ratio(keep=0.5, of='entered', rounding='up') must be a tuple"),
        ({"scorer": AttentionScorer(products=True), "budget": (Mass(0.5),)}, "scores above 0"),
        ({"scorer": AttentionScorer(standardise=True), "budget": (Mass(0.5),)}, "scores above 0"),
        ({"revival": REVIVES, "before_mlp": True}, "revival.most=0"),
        ({"revival": REVIVES, "last": 0}, "revival.most=0"),
        ({"revival": REVIVES, "retention": PerHead(AttentionScorer(), Ratio(0.5), 1)}, "revival.most=0"),
        ({"revival": REVIVES, "layers": (BEFORE_THE_FIRST,)}, "before the first layer"),
        ({"revival": REVIVES, "settles": SETTLES}, "decides for each prompt"),
        ({"before_mlp": True, "settles": SETTLES}, "decides for each prompt"),
        ({"last_share": 1.5}, "last_share=1.5"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        Policy(**{"layers": (1,), "budget": (Ratio(0.5),), **parts})
    assert words in str(refused.value)


@pytest.mark.parametrize("parts", [{"products": True}, {"standardise": True}])
def test_signed_scores_rank_and_count_where_no_mass_is_asked_for(parts: dict[str, Any]) -> None:
    assert Policy((1,), AttentionScorer(**parts), (Ratio(0.5),)).scorer == AttentionScorer(**parts)


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
