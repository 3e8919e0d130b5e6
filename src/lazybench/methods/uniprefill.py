"""UniPrefill: blocks of tokens are dropped at several layers, as many as the attention's mass allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedConfig

from lazybench.errors import UserError, check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Mass, check_share
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import layers_run
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class UniPrefill(PolicyMethod):
    """At six layers the blocks that hold a share of the newest queries' attention go on, the others are dropped.

    Source: UniPrefill (arXiv 2605.06221), by its authors' code. The softmax rows of the last 128 queries are averaged
    over queries and query heads and summed over blocks of 64 tokens of what is left; the best blocks go on, up to a
    share of the sum (0.99 for Llama). The first and the last 128 tokens always stay. Tokens are dropped after the
    layer's attention, before its MLP; for Llama 3.1 8B after the attention of layers 7, 11, 15, 19, 23 and 27.

    Deviations: the code has two rules. ``kernel``, which serves requests, keeps the block that crosses the share and
    spares exactly 128 tokens at each end; ``reference``, its plain Python twin, drops that block and spares whole
    blocks, of which the last may be short. What the paper says of the two could not be read; ``kernel`` is the default.
    One prefill of the whole prompt, where the authors serve it in chunks. Nothing is dropped where ``first + last`` or
    fewer tokens are left, as in the code.

    Args:
        mass: share of the attention that goes on, in (0, 1].
        depths: shares of the model's layers after whose attention blocks are dropped.
        window: newest queries that score.
        block: tokens of a block.
        first: tokens at the beginning that always stay.
        last: newest tokens that always stay.
        rule: see above.
    """

    mass: float = 0.99
    depths: tuple[float, ...] = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    window: int = 128
    block: int = 64
    first: int = 128
    last: int = 128
    rule: Literal["kernel", "reference"] = "kernel"

    name: ClassVar[str] = "uniprefill"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        check_share("uniprefill.mass", self.mass)
        for depth in self.depths:
            check_share("uniprefill.depths", depth)
        for field, least in (("window", 1), ("block", 1), ("first", 0), ("last", 1)):
            check_whole_number(f"uniprefill.{field}", getattr(self, field), least)
        if self.rule not in ("kernel", "reference"):
            raise UserError(f"uniprefill.rule={self.rule!r} is not one of kernel, reference")

    @property
    def label(self) -> str:
        return f"mass={self.mass:g}{self.others('mass', 'rule')}" + ("" if self.rule == "kernel" else " reference")

    def policy(self, config: PreTrainedConfig) -> Policy:
        layers = sorted({layers_run(depth, config.num_hidden_layers) - 1 for depth in self.depths})
        return Policy(
            At(tuple(layers)),
            AttentionScorer(self.window),
            Mass(self.mass, crossing=self.rule == "kernel"),
            first=self.first,
            last=self.last,
            chunk=self.block,
            whole_chunks=self.rule == "reference",
            before_mlp=True,
            name=self.title,
        )
