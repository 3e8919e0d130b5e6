"""Models: hub, local folder, GGUF file, the embedded default, or random weights of the true shape."""

from lazybench.models.loading import load_model
from lazybench.models.spec import LoadedModel, ModelSpec

__all__ = ["LoadedModel", "ModelSpec", "load_model"]
