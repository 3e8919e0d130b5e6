"""A policy: everything that tells one method of this field from another.

**Where** tokens are pruned (placement), **by what** score (scorer), **how many** stay (budget), in what **units**
(tokens or chunks of them), what comes **back** in decoding (revival), and what of the KV cache is kept (retention).
None of these parts calls another; the engine asks each in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lazybench.errors import UserError, check_share, check_whole_number
from lazybench.pruning.budgets import NEVER, Budget, Mass, Revival, share_of
from lazybench.pruning.scorers import AttentionScorer, Scorer, Seen

BEFORE_THE_FIRST = -1  # a pruning layer of -1: the tokens are chosen before any layer runs

# asked after each layer that may prune, with its scores (batch, keys) if it has any: are tokens pruned here?
Decision = Callable[[int, Tensor | None], bool]


class Placement(Protocol):
    """Where a policy prunes."""

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """The pruning layers, where they are known beforehand."""

    def scored(self, look_back: int) -> frozenset[int] | range:
        """The layers whose attention is scored, when a pruning layer looks back on ``look_back`` of them."""

    def begin(self) -> Decision:
        """The decision for one prefill."""


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


class Retention(Protocol):
    """Asked once per full-attention layer, after the attention of the prefill."""

    def queries(self, prompt_tokens: int) -> int:
        """How many of the newest queries it wants to see."""

    def spares(self, layer: int) -> bool:
        """Whether this layer keeps all of its cache."""

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        """(batch, kv_heads, kept) slots to keep, rising; None: all."""


@dataclass(frozen=True)
class PerHead:
    """The best-scored keys of each key-value head, and the newest.

    Prefill attention is over before anything is evicted, so this saves memory and decoding time, never TTFT.

    Args:
        scorer: scores by key-value head.
        budget: keys that each head keeps, ``last`` included: of the prompt with ``of="context"``, of the keys
            that the layer computed with ``of="entered"``.
        last: newest keys that always stay.
        first_layers: layers from the first that keep everything (CLAA: 4).
    """

    scorer: AttentionScorer = field(default_factory=AttentionScorer)
    budget: Budget | None = None
    last: int = 1
    first_layers: int = 0

    def queries(self, prompt_tokens: int) -> int:
        return self.scorer.queries(prompt_tokens)

    def spares(self, layer: int) -> bool:
        return self.budget is None or layer < self.first_layers

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        keys = seen.position.shape[1]
        if self.budget is None:
            return None
        kept = max(self.last, self.budget.count(keys, prompt_tokens, self.last))
        if kept >= keys:
            return None
        scores = self.scorer.by_kv_head(seen).clone()  # (batch, kv_heads, keys), in the text's order
        scores[:, :, keys - self.last :] = torch.inf
        return scores.topk(kept, dim=2).indices.sort(dim=2).values


@dataclass(frozen=True)
class Policy:
    """One way to choose the tokens that go on, layer by layer.

    Args:
        placement: where tokens are pruned.
        scorer: what they are ranked by.
        budget: how many stay; one for all prunings, or one each.
        first: tokens at the beginning of the prompt that always stay (attention sinks).
        last: newest tokens that always stay. 1 (LazyLLM): the query token.
        last_share: and so large a share of the prompt beside them, added to ``last`` (PyramidInfer).
        chunk: tokens that stay or go together.
        whole_chunks: ``first`` and ``last`` count in whole chunks, of which the last may be short.
        chunk_score: a chunk's score, the sum or the mean over its tokens.
        look_back: how many layers' scores a pruning layer considers, its own included.
        over_layers: how they are reduced.
        before_mlp: tokens are dropped after the attention of the pruning layer, before its MLP, which is saved.
        revival: what comes back in decoding.
        retention: what of each layer's keys and values is kept after the prefill; None: all.
        name: the method's, for errors.

    Raises:
        UserError: parts that contradict each other.
    """

    placement: Placement
    scorer: Scorer = field(default_factory=AttentionScorer)
    budget: Budget | Mass | Sequence[Budget | Mass] = ()
    first: int = 0
    last: int = 1
    last_share: float = 0.0
    chunk: int = 1
    chunk_score: Literal["sum", "mean"] = "sum"
    whole_chunks: bool = False
    look_back: int = 1
    over_layers: Literal["max", "mean"] = "max"
    before_mlp: bool = False
    revival: Revival = NEVER
    retention: Retention | None = None
    name: str = field(default="token pruning", compare=False)

    def __post_init__(self) -> None:
        for name, least in (("first", 0), ("last", 0), ("chunk", 1), ("look_back", 1)):
            check_whole_number(name, getattr(self, name), least)
        if self.last_share != 0:
            check_share("last_share", self.last_share)
        layers = self.placement.fixed
        if layers is not None and isinstance(self.budget, Sequence) and len(self.budget) != len(layers):
            raise UserError(f"{len(layers)} pruning layers need as many budgets, not {len(self.budget)}")
        budgets = self.budget if isinstance(self.budget, Sequence) else (self.budget,)
        by_mass = any(isinstance(one, Mass) for one in budgets)
        if by_mass and isinstance(self.scorer, AttentionScorer) and self.scorer.signed:
            raise UserError("a share of the score's mass needs scores above 0; products and z-scores fall below")
        if self.revives and (self.retention or self.before_mlp or not self.last):
            raise UserError(
                "tokens come back from the Aux Cache only where the cache is whole, the MLP ran and the last token "
                "stays; set revival.most=0"
            )
        if self.revives and BEFORE_THE_FIRST in (layers or ()):
            raise UserError("tokens dropped before the first layer have no state to come back with; set revival.most=0")
        if layers is None and (self.revival.most != 0 or self.before_mlp):
            raise UserError("a placement that each prompt decides anew revives nothing and saves no MLP")

    @property
    def revives(self) -> bool:
        """Whether decoding steps select anew; if not, they run as the plain model does."""
        return self.revival.most != 0 and self.placement.fixed != ()

    def check_depth(self, num_layers: int) -> None:
        """Refuse pruning layers that a model of ``num_layers`` does not have, the last one included.

        Raises:
            UserError: after the last layer there is nothing left to save.
        """
        for layer in self.placement.fixed or ():
            if not BEFORE_THE_FIRST <= layer <= num_layers - 2:
                raise UserError(
                    f"pruning layer {layer} is out of range for a model of {num_layers} layers; "
                    f"allowed are the 0-based indices 0 to {num_layers - 2} (pruning after the last saves nothing)"
                )

    def recent(self, prompt_tokens: int) -> int:
        """How many of the newest tokens always stay in a prefill of ``prompt_tokens``."""
        return self.last + int(self.last_share * prompt_tokens)

    def scored_by(self, scorer: Scorer) -> Policy:
        """The same with another scorer."""
        return replace(self, scorer=scorer)

    @classmethod
    def nothing_pruned(cls, **options: Any) -> Policy:
        """Every token through every layer; ``options``: a retention, say."""
        return cls(At(()), **options)
