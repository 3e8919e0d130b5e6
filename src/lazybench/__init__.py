"""lazybench: LazyLLM (arXiv 2407.14057) on any Hugging Face decoder-only model, and its benchmark.

Importing this package needs torch and transformers only, changes nothing in either, and is quick: they are
imported with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError

if TYPE_CHECKING:
    from lazybench.pruning.engine import LazyLLM as LazyLLM
    from lazybench.pruning.schedule import PruningSchedule as PruningSchedule

__version__ = "0.2.0"
__all__ = ["LazyLLM", "PruningSchedule", "UserError"]

_HOMES = {"LazyLLM": "lazybench.pruning.engine", "PruningSchedule": "lazybench.pruning.schedule"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
