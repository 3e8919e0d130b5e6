"""DASH: tokens that one layer's attention hardly changes halt there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.settings import Share


@register
@dataclass(frozen=True)
class DASH(PolicyMethod):
    """After one layer's attention the tokens go on whose update by it is the largest; no query is asked.

    Source: DASH (arXiv 2604.18103), second-hand; its announced code was not found. At 0.4 of the depth the L2 norm of
    each token's attention output, before the residual is added, decides. What halts never comes back.

    Deviations: what could not be read is chosen here. Halted tokens' keys and values are not seen in later layers, as
    the paper's count of FLOPs has it; they are dropped before that layer's MLP; the last token always stays, since its
    state gives the next token; the depth is floored to whole layers.

    Args:
        keep: share of the prompt that goes on, in (0, 1]. 0.3 gives the paper's 1.74x.
        depth: share of the model's layers that see the whole prompt, the halting layer included, in (0, 1).
    """

    keep: Share = 0.3
    depth: Share = 0.4

    name: ClassVar[str] = "dash"
    title: ClassVar[str] = "DASH"
    drawn_as: ClassVar[tuple[str, str]] = ("#117733", "^")
    shown: ClassVar[tuple[str, ...]] = ("keep", "depth")
    amount: ClassVar[tuple[str, ...]] = ("keep", "depth")

    def policy(self, config: TextConfig) -> pruning.Policy:
        return pruning.Policy(
            (pruning.layers_run(self.depth, config.num_hidden_layers) - 1,),
            pruning.OutputNorm(),
            (pruning.Ratio(self.keep, of="context"),),
            before_mlp=True,
        )
