"""UniPrefill: blocks of tokens are dropped at several layers, as many as the attention's mass allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Count, Number, Share


@register
@dataclass(frozen=True)
class UniPrefill(PolicyMethod):
    """At six layers the blocks that hold a share of the newest queries' attention go on, the others are dropped.

    Source: UniPrefill (arXiv 2605.06221), by its authors' code. The softmax rows of the last 128 queries are averaged
    over queries and query heads and summed over blocks of 64 tokens of what is left; the best blocks go on, up to a
    share of the sum (0.99 for Llama). The first and the last 128 tokens always stay. Tokens are dropped after the
    layer's attention, before its MLP; for Llama 3.1 8B after the attention of layers 7, 11, 15, 19, 23 and 27.

    Deviations: of the code's two rules this is the kernel's, which serves requests: it keeps the block that crosses the
    share and spares exactly 128 tokens at each end (its plain Python twin drops that block and spares whole blocks).
    What the paper says of the two could not be read. One prefill of the whole prompt, where the authors serve it in
    chunks. Nothing is dropped where ``first + last`` or fewer tokens are left, as in the code.

    Args:
        mass: share of the attention that goes on, in (0, 1].
        depths: shares of the model's layers after whose attention blocks are dropped.
        window: newest queries that score.
        block: tokens of a block.
        first: tokens at the beginning that always stay.
        last: newest tokens that always stay.
    """

    mass: Share = 0.99
    depths: tuple[Share, ...] = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    window: Count = 128
    block: Count = 64
    first: Number = 128
    last: Count = 128

    name: ClassVar[str] = "uniprefill"
    title: ClassVar[str] = "UniPrefill"
    drawn_as: ClassVar[tuple[str, str]] = ("#009E73", "s")
    shown: ClassVar[tuple[str, ...]] = ("mass",)
    amount: ClassVar[tuple[str, ...]] = ("mass",)

    def policy(self, config: TextConfig) -> pruning.Policy:
        layers = sorted({pruning.place(depth, config) for depth in self.depths})
        return pruning.Policy(
            tuple(layers),
            pruning.AttentionScorer(self.window),
            (pruning.Mass(self.mass),) * len(layers),
            first=self.first,
            last=self.last,
            chunk=self.block,
            before_mlp=True,
        )
