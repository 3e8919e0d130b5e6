"""A policy: everything that tells one method of this field from another.

**Where** tokens are pruned (placement), **by what** score (scorer), **how many** stay (budget), in what **units**
(tokens or chunks of them), what comes **back** in decoding (revival), and what of the KV cache is kept (retention).
None of these parts calls another; the engine asks each in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lazybench.errors import UserError, check_share, check_whole_number
from lazybench.pruning.budgets import NEVER, Budget, Mass, Revival
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import AttentionScorer, OutputNorm, Scorer

BEFORE_THE_FIRST = -1  # a pruning layer of -1: the tokens are chosen before any layer runs

# asked after each layer that may prune, with its scores (batch, keys) if it has any: are tokens pruned here?
Decision = Callable[[int, Tensor | None], bool]


class Placement(Protocol):
    """Where a policy prunes."""

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """The pruning layers, where they are known beforehand."""

    def scored(self, look_back: int, readable: Sequence[int] | None = None) -> frozenset[int] | range:
        """The layers whose attention is scored, when a pruning layer looks back on ``look_back`` of them.

        Args:
            readable: the layers that see the whole prompt, which it looks back on; None: all.
        """

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

    def scored(self, look_back: int, readable: Sequence[int] | None = None) -> frozenset[int] | range:
        """With ``look_back`` layers each, the pruning layer itself included, whether it is ``readable`` or not."""
        found: set[int] = set()
        for last in self.layers:
            before = [layer for layer in (range(last) if readable is None else readable) if layer < last]
            found.update(before[max(0, len(before) - look_back + 1) :], {last} - {BEFORE_THE_FIRST})
        return frozenset(found)

    def begin(self) -> Decision:
        return lambda layer, _: layer in self.layers


@dataclass(frozen=True)
class PerHead:
    """A retention: the best-scored keys of each key-value head, and the newest.

    Asked once per full-attention layer, after the attention of the prefill, so it saves memory and decoding time, never
    TTFT.

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
        """How many of the newest queries it wants to see."""
        return self.scorer.queries(prompt_tokens)

    def spares(self, layer: int) -> bool:
        """Whether this layer keeps all of its cache."""
        return self.budget is None or layer < self.first_layers

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        """(batch, kv_heads, kept) slots to keep, rising; None: all."""
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
        look_back: how many layers' scores a pruning layer considers, its own included; layers with a sliding window
            before it are passed over where others see the whole prompt.
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
    retention: PerHead | None = None
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
        before_the_first = BEFORE_THE_FIRST in (layers or ())
        if self.revives and before_the_first:
            raise UserError("tokens dropped before the first layer have no state to come back with; set revival.most=0")
        if isinstance(self.scorer, OutputNorm) and (self.revives or before_the_first):
            raise UserError(
                "only what a layer computes there and then has an output; set revival.most=0, layers from 0"
            )
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
