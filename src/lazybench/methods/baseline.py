"""The plain model: every prompt token through every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench.contract import Method, Request, Response
from lazybench.methods.shortening import answer


@dataclass(frozen=True)
class Baseline(Method):
    """Plain ``model.generate``, untouched: what every speedup and every relative score refers to.

    Source: the baseline row of LazyLLM's table 1 (arXiv 2407.14057). No deviation.
    """

    name: ClassVar[str] = "baseline"

    def run(self, request: Request) -> Response:
        return answer(request, request.prompt_ids)
