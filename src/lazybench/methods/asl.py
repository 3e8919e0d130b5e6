"""ASL: tokens are pruned once, at the layer where their ranking has settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from lazybench import pruning
from lazybench.errors import UserError, check_whole_number
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import Tensor, TextConfig
from lazybench.pruning.budgets import share_of
from lazybench.pruning.settings import Count, Odd, Share


@dataclass(frozen=True)
class WhereRanksSettle:
    """Once, at the first layer where the ranking of the best tokens has settled.

    The ranks of the latest ``observed`` layers are compared: over the union of their ``top`` best tokens, the mean
    of the squared distance of a token's rank from its own mean over these layers. The value at the first layer that
    has as many is the reference; tokens are pruned after the first layer whose value is below ``below`` of it. If
    none is, nothing is pruned.

    Args:
        observed: how many layers are compared; the policy's first is the first of them.
        top: how many of the best tokens of each count.
        share: of the keys, less ``top`` of them, instead; None: ``top`` itself.
        below: share of the reference, in (0, 1).
    """

    observed: int
    top: int
    below: float
    share: float | None = None

    def __call__(self) -> Callable[[Tensor], bool]:
        ranks: deque[Tensor] = deque(maxlen=self.observed)
        reference: float | None = None

        def settled(scores: Tensor) -> bool:
            nonlocal reference
            ranks.append(scores[0].argsort(descending=True).argsort().double() + 1.0)  # 1 for the best
            if len(ranks) < self.observed:
                return False
            top = self.top if self.share is None else share_of(self.share, scores.shape[1]) - self.top
            value = rank_variance(ranks, max(1, top))
            reference = value if reference is None else reference
            return value < self.below * reference

        return settled


def rank_variance(ranks: Iterable[Tensor], top: int) -> float:
    """How much the ranks of the best tokens differ between layers.

    Args:
        ranks: of each layer, (keys,), 1 for its best token.
        top: how many of each layer's best tokens count.
    """
    layers = list(ranks)
    union = reduce(lambda best, layer: best.minimum(layer), layers) <= top
    mean = sum(layers) / len(layers)
    squares = sum(((layer - mean) ** 2)[union].sum() for layer in layers)
    return float(squares / (len(layers) * union.sum()))


@register
@dataclass(frozen=True)
class ASL(PolicyMethod):
    """The best ``tokens`` go on from the first layer where the ranks of the best tokens vary little between layers.

    Source: ASL (arXiv 2601.07667), by its authors' code; the paper's own text is second-hand. Each layer ranks the
    tokens before the last 32 by the softmax rows of these 32 queries, summed, pooled over 7 neighbours by the mean and
    summed over heads. From layer 10 of 32 on, the ranks of the last 8 layers are compared over the union of their best
    tokens; at the first layer where the mean squared distance from a token's own mean rank falls below 0.3 of its value
    at layer 10, the tokens are chosen by that layer's scores alone. If it never does, nothing is pruned. The last 32
    tokens always stay.

    Deviations: one pass that goes on, as the code's default; the cache keeps all that was computed (the code's options
    for compressing it, by count or by top-p, are left out, and so is its second pass). One prompt at a time: where
    tokens are pruned depends on the prompt. The last layer never prunes: nothing would be left to save.

    Args:
        tokens: how many go on, the window included.
        keep: not given in the paper: a share of the prompt instead, in (0, 1]; None: ``tokens``.
        depth: share of the model's layers that have run at the earliest layer (11 of 32: layer 10).
        observed: share of the model's layers that are compared (8 of 32).
        below: the share of the reference value, in (0, 1).
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    tokens: Count | None = 2048
    keep: Share | None = None
    depth: Share = 0.34375
    observed: Share = 0.25
    below: Share = 0.3
    window: Count = 32
    pool: Odd = 7

    name: ClassVar[str] = "asl"
    title: ClassVar[str] = "ASL"
    drawn_as: ClassVar[tuple[str, str]] = ("#332288", "X")
    shown: ClassVar[tuple[str, ...]] = ("tokens", "keep", "depth", "below")
    amount: ClassVar[tuple[str, ...]] = ("keep", "below", "depth")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None:
            object.__setattr__(self, "tokens", None)
        else:
            check_whole_number("asl.tokens", self.tokens, self.window + 1)

    def policy(self, config: TextConfig) -> pruning.Policy:
        layers = config.num_hidden_layers
        first, observed = pruning.layers_run(self.depth, layers) - 1, max(2, pruning.layers_run(self.observed, layers))
        if not observed - 1 <= first <= layers - 2:
            raise UserError(
                f"asl.depth={self.depth:g} is layer {first} of {layers}; it compares {observed} and must leave one: "
                f"choose from {observed / layers:.2f} to {(layers - 1) / layers:.2f}, or a smaller asl.observed"
            )
        top = self.window if self.tokens is None else self.tokens - self.window
        return pruning.Policy(
            tuple(range(first - observed + 1, layers - 1)),
            pruning.AttentionScorer(self.window, own_columns=False, pool=self.pool),
            (pruning.Ratio(self.keep or 1.0) if self.tokens is None else pruning.Tokens(self.tokens),),
            last=self.window,
            settles=WhereRanksSettle(observed, top, self.below, share=self.keep),
        )
