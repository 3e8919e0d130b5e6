"""lazybench: LazyLLM (arXiv 2407.14057) on any Hugging Face decoder-only model, and its benchmark.

Importing this package needs torch and transformers only, and changes nothing in either.
"""

from lazybench.errors import UserError
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule

__all__ = ["LazyLLM", "PruningSchedule", "UserError"]
__version__ = "0.1.0"
