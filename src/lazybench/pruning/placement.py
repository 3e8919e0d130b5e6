"""Where tokens are pruned: after which layers of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lazybench.pruning.budgets import share_of

BEFORE_THE_FIRST = -1  # a pruning layer of -1: the tokens are chosen before any layer runs

# asked after each layer that may prune, with its scores (batch, keys) if it has any: are tokens pruned here?
Decision = Callable[[int, Tensor | None], bool]


class Placement(Protocol):
    """Where a policy prunes."""

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """The pruning layers, where they are known beforehand."""
        ...

    def scored(self, look_back: int) -> frozenset[int] | range:
        """The layers whose attention is scored, when a pruning layer looks back on ``look_back`` of them."""
        ...

    def begin(self) -> Decision:
        """The decision for one prefill."""
        ...


@dataclass(frozen=True)
class At:
    """After these layers, whatever the prompt.

    Args:
        layers: 0-based indices, strictly rising; -1: before the first layer.
    """

    layers: tuple[int, ...]

    @property
    def fixed(self) -> tuple[int, ...] | None:
        return self.layers

    def scored(self, look_back: int) -> frozenset[int] | range:
        """With ``look_back`` layers each, the pruning layer itself included."""
        return frozenset(layer for last in self.layers for layer in range(max(0, last - look_back + 1), last + 1))

    def begin(self) -> Decision:
        return lambda layer, _: layer in self.layers


@dataclass(frozen=True)
class WhereRanksSettle:
    """Once, at the first layer where the ranking of the best tokens has settled (ASL, arXiv 2601.07667).

    The ranks of the latest ``observed`` layers are compared: over the union of their ``top`` best tokens, the mean
    of the squared distance of a token's rank from its own mean over these layers. The value at layer ``first`` is
    the reference; tokens are pruned after the first layer (``first`` included) whose value is below ``below`` of it.
    If none is, nothing is pruned.

    Args:
        first: 0-based index of the earliest layer, at least ``observed - 1``.
        observed: how many layers are compared.
        top: how many of the best tokens of each count.
        share: of the keys, less ``top`` of them, instead; None: ``top`` itself.
        below: share of the reference, in (0, 1).
        last: no layer after this one prunes (a model's last layer has nothing left to save).
    """

    first: int
    observed: int
    top: int
    below: float
    last: int
    share: float | None = None

    @property
    def fixed(self) -> tuple[int, ...] | None:
        return None

    def scored(self, look_back: int) -> frozenset[int] | range:
        return range(self.first - self.observed + 1, self.last + 1)

    def begin(self) -> Decision:
        ranks: deque[Tensor] = deque(maxlen=self.observed)
        reference: list[float] = []

        def decide(layer: int, scores: Tensor | None) -> bool:
            if reference and reference[0] < 0:  # decided
                return False
            assert scores is not None
            ranks.append(descending_ranks(scores[0]))
            if layer < self.first:
                return False
            top = self.top if self.share is None else share_of(self.share, scores.shape[1]) - self.top
            value = rank_variance(torch.stack(tuple(ranks)), max(1, top))
            if not reference:
                reference.append(value)
            settled = value < self.below * reference[0]
            if settled:
                reference[0] = -1.0
            return settled

        return decide


def descending_ranks(scores: Tensor) -> Tensor:
    """(keys,) each token's place by falling score, 1 for the best."""
    order = scores.argsort(descending=True)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device, dtype=torch.float64)
    return torch.empty_like(ranks).scatter_(0, order, ranks)


def rank_variance(ranks: Tensor, top: int) -> float:
    """How much the ranks of the best tokens differ between layers.

    Args:
        ranks: (layers, keys), 1 for the best token of a layer.
        top: how many of each layer's best tokens count.
    """
    union = (ranks <= top).any(dim=0)
    among = ranks[:, union]  # (layers, tokens of the union)
    return float(((among - among.mean(dim=0)) ** 2).mean())
