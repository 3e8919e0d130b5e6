"""Models: hub, local folder, GGUF file, the embedded default, or random weights of the true shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazybench.models.spec import LoadedModel, ModelSpec

if TYPE_CHECKING:
    from lazybench.models.loading import load_model as load_model

__all__ = ["LoadedModel", "ModelSpec", "load_model"]


def __getattr__(name: str) -> Any:  # a specification alone needs no torch
    if name == "load_model":
        from lazybench.models.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
