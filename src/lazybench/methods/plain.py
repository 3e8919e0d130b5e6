"""The plain model with another attention kernel, to be seen beside the baseline's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench.methods.base import Method, register
from lazybench.methods.request import Request, Response


@register
@dataclass(frozen=True)
class Plain(Method):
    """Plain ``model.generate`` with an attention implementation of transformers by its name.

    Source: a yardstick, meant for FlashAttention-2 (arXiv 2307.08691). Where its package is missing, each sample
    fails and says so.

    Args:
        attention: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, ...
    """

    attention: str = "eager"

    name: ClassVar[str] = "plain"
    title: ClassVar[str] = "Plain"
    drawn_as: ClassVar[tuple[str, str]] = ("#777777", "o")
    shown: ClassVar[tuple[str, ...]] = ("attention",)
    amount: ClassVar[tuple[str, ...]] = ()

    def run(self, request: Request) -> Response:
        before = request.model.config._attn_implementation
        request.model.set_attn_implementation(self.attention)
        try:
            return self.answer(request, request.prompt_ids)
        finally:
            request.model.set_attn_implementation(before)
