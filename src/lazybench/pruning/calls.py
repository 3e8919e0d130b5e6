"""Where one ``generate`` call begins and ends: what a call brings is prompt, what it makes itself is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel

from lazybench.pruning import checks


class GenerateCalls:
    """Watches the ``generate`` of a model, of which its forward passes know nothing.

    Args:
        model: whose ``generate`` to watch.
        returned: called with the tokens (sequences, length) that a call returns.
        method: whom to name in errors.

    Attributes:
        inside: a call is under way.
    """

    def __init__(self, model: PreTrainedModel, returned: Callable[[Tensor], None], method: str) -> None:
        self.model, self.returned, self.method = model, returned, method
        self._begins = self.inside = False

    def begins(self) -> bool:
        """Whether this forward pass is the first of a call; to be asked once in each pass."""
        begins, self._begins = self._begins, False
        return begins

    def attach(self, undo: ExitStack) -> None:
        """Watch from now on; ``undo`` puts back what was there."""
        attributes = vars(self.model)
        original = cast(Callable[..., Any], self.model.generate)
        if "generate" in attributes:
            undo.callback(attributes.update, generate=original)
        else:
            undo.callback(attributes.pop, "generate")

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            checks.check_generate(self.model.generation_config, args, kwargs, self.method)
            self._begins = self.inside = True
            try:
                output = original(*args, **kwargs)
            finally:
                self._begins = self.inside = False
            tokens = getattr(output, "sequences", output)
            if isinstance(tokens, Tensor):
                self.returned(tokens)
            return output

        attributes["generate"] = generate
