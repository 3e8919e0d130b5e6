"""A policy refuses parts that contradict each other, in one line, before anything runs; where ranks settle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lazybench.errors import UserError
from lazybench.methods.asl import WhereRanksSettle
from lazybench.pruning.budgets import Mass, Ratio, Revival
from lazybench.pruning.policy import BEFORE_THE_FIRST, At, PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer

REVIVES = Revival(most=4)
SETTLED = WhereRanksSettle(first=1, observed=2, top=2, below=0.3, last=5)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"placement": At((1, 2)), "budget": (Ratio(0.5),)}, "2 pruning layers need as many budgets, not 1"),
        ({"scorer": AttentionScorer(products=True), "budget": Mass(0.5)}, "scores above 0"),
        ({"scorer": AttentionScorer(standardise=True), "budget": (Mass(0.5),)}, "scores above 0"),
        ({"revival": REVIVES, "before_mlp": True}, "revival.most=0"),
        ({"revival": REVIVES, "last": 0}, "revival.most=0"),
        ({"revival": REVIVES, "retention": PerHead(AttentionScorer(), Ratio(0.5), 1)}, "revival.most=0"),
        ({"revival": REVIVES, "placement": At((BEFORE_THE_FIRST,))}, "before the first layer"),
        ({"revival": REVIVES, "placement": SETTLED}, "decides anew"),
        ({"before_mlp": True, "placement": SETTLED}, "decides anew"),
        ({"last_share": 1.5}, "last_share=1.5"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        Policy(**{"placement": At((1,)), "budget": Ratio(0.5), **parts})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("parts", [{"products": True}, {"standardise": True}])
def test_signed_scores_rank_and_count_where_no_mass_is_asked_for(parts: dict[str, Any]) -> None:
    assert Policy(At((1,)), AttentionScorer(**parts), Ratio(0.5)).scorer == AttentionScorer(**parts)


RISING, FALLING = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "last", "pruned_after"),
    [
        ([RISING, FALLING, RISING, RISING, RISING, RISING], 5, [3]),  # once
        ([RISING, FALLING] * 3, 5, []),  # the ranks never settle
        ([RISING, FALLING, RISING, RISING], 2, []),  # too late
        ([RISING] * 6, 5, []),  # settled from the start: never below its own reference
    ],
)
def test_each_prompt_is_pruned_once_at_the_first_settled_layer(
    rows: list[list[float]], last: int, pruned_after: list[int]
) -> None:
    placement = WhereRanksSettle(first=1, observed=2, top=2, below=0.3, last=last)
    scored = placement.scored(1)
    for _ in range(2):  # each prefill decides anew
        decide = placement.begin()
        assert [at for at, row in enumerate(rows) if at in scored and decide(at, torch.tensor([row]))] == pruned_after
