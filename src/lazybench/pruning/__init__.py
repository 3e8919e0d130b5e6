"""The engine and the parts that a policy is made of. Needs torch and transformers only.

Its names are imported with their first use, so that settings can be read and refused before torch is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazybench.pruning.budgets import Mass as Mass
    from lazybench.pruning.budgets import Ratio as Ratio
    from lazybench.pruning.budgets import Revival as Revival
    from lazybench.pruning.budgets import Tokens as Tokens
    from lazybench.pruning.budgets import share_of as share_of
    from lazybench.pruning.engine import Pruned as Pruned
    from lazybench.pruning.lazyllm import LazyLLM as LazyLLM
    from lazybench.pruning.places import layers_run as layers_run
    from lazybench.pruning.places import place as place
    from lazybench.pruning.policy import BEFORE_THE_FIRST as BEFORE_THE_FIRST
    from lazybench.pruning.policy import PerHead as PerHead
    from lazybench.pruning.policy import Policy as Policy
    from lazybench.pruning.schedule import PruningSchedule as PruningSchedule
    from lazybench.pruning.scorers import AttentionScorer as AttentionScorer
    from lazybench.pruning.scorers import Given as Given
    from lazybench.pruning.scorers import OutputNorm as OutputNorm

_HOMES = {
    **dict.fromkeys(("Mass", "Ratio", "Revival", "Tokens", "share_of"), "budgets"),
    "LazyLLM": "lazyllm",
    "Pruned": "engine",
    **dict.fromkeys(("BEFORE_THE_FIRST", "PerHead", "Policy"), "policy"),
    **dict.fromkeys(("layers_run", "place"), "places"),
    "PruningSchedule": "schedule",
    **dict.fromkeys(("AttentionScorer", "Given", "OutputNorm"), "scorers"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
