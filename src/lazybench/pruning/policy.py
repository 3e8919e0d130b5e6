"""A policy: everything that tells one method of this field from another.

**Where** tokens are pruned (placement), **by what** score (scorer), **how many** stay (budget), in what **units**
(tokens or chunks of them), what comes **back** in decoding (revival), and what of the KV cache is kept (retention).
None of these parts calls another; the engine asks each in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lazybench.errors import UserError, check_share, check_whole_number
from lazybench.pruning.budgets import Budget, Mass
from lazybench.pruning.placement import BEFORE_THE_FIRST, At, Placement
from lazybench.pruning.retention import Retention
from lazybench.pruning.revival import NEVER, Revival
from lazybench.pruning.scorers import AttentionScorer, Scorer


@dataclass(frozen=True)
class Policy:
    """One way to choose the tokens that go on, layer by layer.

    Args:
        placement: where tokens are pruned.
        scorer: what they are ranked by.
        budget: how many stay; one for all prunings, or one each.
        first: tokens at the beginning of the prompt that always stay (attention sinks).
        last: newest tokens that always stay. LazyLLM keeps the last alone, which asks.
        last_share: and so large a share of the prompt beside them, added to ``last`` (PyramidInfer).
        chunk: tokens that stay or go together.
        whole_chunks: ``first`` and ``last`` count in whole chunks, of which the last may be short.
        chunk_score: a chunk's score, the sum or the mean over its tokens.
        look_back: how many layers' scores a pruning layer considers, its own included.
        over_layers: how they are reduced.
        generated: whether generated tokens are ranked like the prompt's (``"pruned"``), or every one of them is
            kept and the budget counts prompt tokens alone (``"kept"``).
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
    generated: Literal["pruned", "kept"] = "pruned"
    before_mlp: bool = False
    revival: Revival = NEVER
    retention: Retention | None = None
    name: str = field(default="token pruning", compare=False)

    def __post_init__(self) -> None:
        check_whole_number("first", self.first, 0)
        check_whole_number("last", self.last, 0)
        if self.last_share != 0:
            check_share("last_share", self.last_share)
        check_whole_number("chunk", self.chunk)
        check_whole_number("look_back", self.look_back)
        layers = self.placement.fixed
        if layers is not None and isinstance(self.budget, Sequence) and len(self.budget) != len(layers):
            raise UserError(f"{len(layers)} pruning layers need as many budgets, not {len(self.budget)}")
        budgets = self.budget if isinstance(self.budget, Sequence) else (self.budget,)
        by_mass = any(isinstance(one, Mass) for one in budgets)
        if by_mass and isinstance(self.scorer, AttentionScorer) and self.scorer.signed:
            raise UserError("a share of the score's mass needs scores above 0; products and z-scores fall below")
        if self.generated == "kept" and (by_mass or self.chunk > 1):
            raise UserError(
                "generated=kept counts prompt tokens alone, which chunks and shares of the mass don't; "
                "set generated=pruned"
            )
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
