"""lazybench: LazyLLM (arXiv 2407.14057) on any Hugging Face decoder-only model, and its benchmark.

Importing this package changes nothing in torch and transformers, and is quick: they are imported with the first name
that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError
from lazybench.pruning.schedule import PruningSchedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lazybench.pruning.engine import LazyLLM, Pruned

__version__ = "0.3.0"
__all__ = ["LazyLLM", "PruningSchedule", "UserError", "prune"]


def __getattr__(name: str) -> Any:
    if name != "LazyLLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lazybench.pruning.engine import LazyLLM

    return LazyLLM


def prune(model: PreTrainedModel, method: str = "lazyllm", **params: Any) -> Pruned:
    """A context in which ``model.generate`` prunes by a method; leaving it restores the model.

    Args:
        method: any method that is a pruning policy, by its name on the command line: ``"taper"``, ``"fastkv"``, ...
        params: its parameters, by the same names: ``preset="fast"``.

    Raises:
        UserError: no such method or parameter, a method that is no policy, or a model that can't run it.
    """
    from lazybench.methods import METHODS, PolicyMethod, build
    from lazybench.pruning.engine import Pruned

    chosen = build(method, params)
    if not isinstance(chosen, PolicyMethod) or not chosen.only_prunes:
        policies = [name for name, kind in METHODS.items() if kind.run is PolicyMethod.run]
        raise UserError(f"{method} does more than prune inside the model; prune() takes one of {', '.join(policies)}")
    return Pruned(model, chosen.for_model(model))
