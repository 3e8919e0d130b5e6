"""KV-cache eviction after a full prefill: SnapKV and H2O. They save memory and decoding time, never TTFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedConfig

from lazybench.errors import check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Ratio, Tokens, check_share
from lazybench.pruning.policy import Policy
from lazybench.pruning.retention import PerHead
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class SnapKV(PolicyMethod):
    """Each KV head keeps the prompt's keys and values that the last 32 queries look at, and their own.

    Source: SnapKV (arXiv 2404.14469), as in its authors' code: softmax rows of the window summed, the window's own
    columns left out, averaged over 5 neighbours; the window always stays.

    Deviations: a share of the prompt, where the authors keep 1024 tokens (``tokens=1024``). One choice per KV head,
    summed over its query heads (the authors' code repeats keys and values for each query head and chooses for each).
    Layers with a sliding window keep their cache.

    Args:
        keep: share of the prompt that each KV head keeps, the window included, in (0, 1].
        tokens: a number of tokens instead; None: ``keep``.
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    keep: float = 0.2
    tokens: int | None = None
    window: int = 32
    pool: int = 5

    name: ClassVar[str] = "snapkv"

    def __post_init__(self) -> None:
        check_share(f"{self.name}.keep", self.keep)
        check_whole_number(f"{self.name}.window", self.window)
        if self.tokens is not None:
            check_whole_number(f"{self.name}.tokens", self.tokens)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        how_many = f"keep={self.keep:g}" if self.tokens is None else f"tokens={self.tokens}"
        return how_many + self.others("keep", "tokens")

    @property
    def scorer(self) -> AttentionScorer:
        """What the keys of each head are scored by."""
        return AttentionScorer(window=self.window, own_columns=False, pool=self.pool)

    def policy(self, config: PreTrainedConfig) -> Policy:
        budget = Ratio(self.keep, of="context") if self.tokens is None else Tokens(self.tokens)
        return Policy.nothing_pruned(retention=PerHead(self.scorer, budget, self.window), name=self.title)
