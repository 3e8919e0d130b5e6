"""The plain model: every prompt token through every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench.methods.base import Method, register
from lazybench.methods.request import Request, Response


@register
@dataclass(frozen=True)
class Baseline(Method):
    """Plain ``model.generate``, untouched: what every speedup and every relative score refers to.

    Source: the baseline row of LazyLLM's table 1 (arXiv 2407.14057). No deviation.
    """

    name: ClassVar[str] = "baseline"
    title: ClassVar[str] = "Baseline"
    drawn_as: ClassVar[tuple[str, str]] = ("#000000", "o")
    shown: ClassVar[tuple[str, ...]] = ()

    def run(self, request: Request) -> Response:
        return self.answer(request)
