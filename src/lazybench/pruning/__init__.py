"""The engine and the parts that a policy is made of. Needs torch and transformers only.

What needs torch is imported with its first use, so that settings can be read and refused before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lazybench.pruning.budgets import Mass, Ratio, Tokens, share_of
from lazybench.pruning.places import layers_run, place

if TYPE_CHECKING:
    from lazybench.pruning.engine import Pruned
    from lazybench.pruning.policy import BEFORE_THE_FIRST, PerHead, Policy
    from lazybench.pruning.scorers import AttentionScorer, Given, OutputNorm

_HOMES = {
    "Pruned": "engine",
    **dict.fromkeys(("BEFORE_THE_FIRST", "PerHead", "Policy"), "policy"),
    **dict.fromkeys(("AttentionScorer", "Given", "OutputNorm"), "scorers"),
}
__all__ = ["BEFORE_THE_FIRST", "AttentionScorer", "Given", "Mass", "OutputNorm", "PerHead", "Policy", "Pruned", "Ratio"]
__all__ += ["Tokens", "layers_run", "place", "share_of"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
