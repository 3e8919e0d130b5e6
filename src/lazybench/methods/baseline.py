"""The plain model: every prompt token through every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench.methods.base import Request, Response
from lazybench.methods.shortening import generate


@dataclass(frozen=True)
class Baseline:
    """Plain ``model.generate``, untouched: what every speedup and every relative score refers to.

    Source: the baseline row of LazyLLM's table 1 (arXiv 2407.14057). No deviation.
    """

    name: ClassVar[str] = "baseline"
    repeats: ClassVar[int] = 1
    variant: ClassVar[str] = ""

    def run(self, request: Request) -> Response:
        new_tokens = generate(request, request.prompt_ids)
        return Response(new_tokens, 1.0, (1.0,), 1.0)
