"""A policy: everything that tells one method of this field from another.

**Where** tokens are pruned (layers), **by what** score (scorer), **how many** stay (budget), in what **units**
(tokens or chunks of them), what comes **back** in decoding (revival), and what of the KV cache is kept (retention).
None of these parts calls another; the engine asks each in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lazybench.errors import UserError, check_share, check_whole_number, shown
from lazybench.pruning.budgets import NEVER, Budget, Mass, Revival
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import AttentionScorer, OutputNorm, Scorer

BEFORE_THE_FIRST = -1  # a pruning layer of -1: the tokens are chosen before any layer runs

# made anew for each prefill; asked after each of the policy's layers, with its scores (batch, keys): prune here?
Settles = Callable[[], Callable[[Tensor], bool]]


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

    scorer: AttentionScorer
    budget: Budget
    last: int = 1
    first_layers: int = 0

    def __call__(self, seen: Seen, prompt_tokens: int) -> Tensor | None:
        """(batch, kv_heads, kept) slots to keep, rising; None: all."""
        keys = seen.position.shape[1]
        kept = max(self.last, self.budget.count(keys, prompt_tokens, self.last))
        if kept >= keys:
            return None
        scores = self.scorer.by_kv_head(seen).clone()  # (batch, kv_heads, keys), in the text's order
        scores[:, :, keys - self.last :] = torch.inf
        return scores.topk(kept, dim=2).indices.sort(dim=2).values


@dataclass(frozen=True)
class Policy:
    """One way to choose the tokens that go on, layer by layer; as it is every token goes through every layer.

    Args:
        layers: 0-based indices, strictly rising, of the layers after which tokens are pruned; -1: before the first.
        scorer: what they are ranked by.
        budget: how many stay after each pruning.
        first: tokens at the beginning of the prompt that always stay (attention sinks).
        last: newest tokens that always stay. 1 (LazyLLM): the query token.
        last_share: and so large a share of the prompt beside them, added to ``last`` (PyramidInfer).
        chunk: tokens that stay or go together.
        chunk_score: a chunk's score, the sum or the mean over its tokens.
        look_back: how many layers' scores a pruning layer considers, its own included; layers with a sliding window
            before it are passed over where others see the whole prompt.
        over_layers: how they are reduced.
        before_mlp: tokens are dropped after the attention of the pruning layer, before its MLP, which is saved.
        revival: what comes back in decoding.
        retention: what of each layer's keys and values is kept after the prefill; None: all.
        settles: decides for each prompt after which one of ``layers``, all of them scored, it is pruned, if any (ASL).
        name: the method's, for errors.

    Raises:
        UserError: parts that contradict each other.
    """

    layers: tuple[int, ...] = ()
    scorer: Scorer = field(default_factory=AttentionScorer)
    budget: tuple[Budget | Mass, ...] = ()
    first: int = 0
    last: int = 1
    last_share: float = 0.0
    chunk: int = 1
    chunk_score: Literal["sum", "mean"] = "sum"
    look_back: int = 1
    over_layers: Literal["max", "mean"] = "max"
    before_mlp: bool = False
    revival: Revival = NEVER
    retention: PerHead | None = None
    settles: Settles | None = None
    name: str = field(default="token pruning", compare=False)

    def __post_init__(self) -> None:
        for name, least in (("first", 0), ("last", 0), ("chunk", 1), ("look_back", 1)):
            check_whole_number(name, getattr(self, name), least)
        if self.last_share != 0:
            check_share("last_share", self.last_share)
        prunings = 1 if self.settles else len(self.layers)
        if not isinstance(self.budget, tuple) or len(self.budget) != prunings:
            raise UserError(f"budget={shown(self.budget)} must be a tuple, one for each of {prunings} prunings")
        if getattr(self.scorer, "products", False) and any(isinstance(one, Mass) for one in self.budget):
            raise UserError("a share of the score's mass needs scores above 0; products fall below")
        before_the_first = BEFORE_THE_FIRST in self.layers
        if self.revives and (self.retention or self.before_mlp or not self.last or before_the_first):
            raise UserError(
                "tokens come back from the Aux Cache only where the cache is whole, the MLP ran, the last token stays "
                "and none is dropped before the first layer; set revival.most=0"
            )
        if isinstance(self.scorer, OutputNorm) and (self.revives or before_the_first):
            raise UserError(
                "only what a layer computes there and then has an output; set revival.most=0, layers from 0"
            )
        if self.settles and (self.revives or self.before_mlp):
            raise UserError("a policy that decides for each prompt where to prune revives nothing and saves no MLP")

    @property
    def revives(self) -> bool:
        """Whether decoding steps select anew; if not, they run as the plain model does."""
        return self.revival.most != 0 and self.layers != ()

    def scored(self, readable: Iterable[int]) -> frozenset[int]:
        """The layers that are scored: ``look_back`` for each pruning layer, itself included.

        Args:
            readable: the layers that see the whole prompt, on which it looks back.
        """
        found = set(self.layers) - {BEFORE_THE_FIRST}
        for last in self.layers:
            before = [layer for layer in readable if layer < last]
            found.update(before[max(0, len(before) - self.look_back + 1) :])
        return frozenset(found)

    def check_depth(self, num_layers: int) -> None:
        """Refuse pruning layers that a model of ``num_layers`` does not have, the last one included.

        Raises:
            UserError: after the last layer there is nothing left to save.
        """
        for layer in self.layers:
            if not BEFORE_THE_FIRST <= layer <= num_layers - 2:
                raise UserError(
                    f"pruning layer {layer} is out of range for a model of {num_layers} layers; "
                    f"allowed are the 0-based indices 0 to {num_layers - 2} (pruning after the last saves nothing)"
                )
