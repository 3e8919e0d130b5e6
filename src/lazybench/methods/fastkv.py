"""FastKV: hidden states of the tokens that the last queries look at go past one layer; the KV cache keeps a share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedConfig

from lazybench.errors import check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Ratio, check_share
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.retention import PerHead
from lazybench.pruning.schedule import layers_run
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class FastKV(PolicyMethod):
    """Past one layer only ``propagate`` of the prompt goes on; every layer's cache keeps ``retain`` of it per head.

    Source: FastKV (arXiv 2502.01068), by its authors' code; the paper's own text is second-hand. Tokens are scored by
    the softmax rows of the last 8 queries, summed, without the window's own columns, pooled over 7 neighbours per query
    head and summed over the heads; the last 8 tokens always stay. The layer is 15 of 32 for Llama 3.1 8B, and runs
    whole. Shares are truncated to whole tokens, the window included.

    Deviations: the first version's scripts pool by the mean, and so does this default; the newest code's is the
    maximum, here ``pool_by=max``. Every layer's cache keeps ``int(N * retain)`` of a prompt of ``N`` tokens; behind the
    layer the authors' keeps ``int(int(N * propagate) * (retain / propagate))``, one token fewer at some lengths. The
    first version's fixed counts (2048 tokens go on, 512 are kept) are left out.
    Layers with a sliding window keep their cache.

    Args:
        propagate: share of the prompt that goes on, in (0, 1].
        retain: share of the prompt whose keys and values each KV head keeps, in (0, 1]; 1: all, no eviction.
        depth: share of the model's layers that see the whole prompt.
        window: newest queries that score, and newest tokens that stay.
        pool: length in tokens of the pooling.
        pool_by: ``"mean"`` or ``"max"``.
    """

    propagate: float = 0.2
    retain: float = 0.1
    depth: float = 0.5  # 16 of 32
    window: int = 8
    pool: int = 7
    pool_by: Literal["mean", "max"] = "mean"

    name: ClassVar[str] = "fastkv"

    def __post_init__(self) -> None:
        for field in ("propagate", "retain", "depth"):
            check_share(f"{self.name}.{field}", getattr(self, field))
        check_whole_number(f"{self.name}.window", self.window)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        named = f"propagate={self.propagate:g} retain={self.retain:g} depth={self.depth:g}"
        return named + self.others("propagate", "retain", "depth")

    @property
    def scorer(self) -> AttentionScorer:
        """What tokens, and the keys of each head, are scored by."""
        return AttentionScorer(window=self.window, own_columns=False, pool=self.pool, pool_by=self.pool_by)

    def policy(self, config: PreTrainedConfig) -> Policy:
        kept = Ratio(self.retain, of="context", rounding="down")
        return Policy(
            At((layers_run(self.depth, config.num_hidden_layers) - 1,)),
            self.scorer,
            Ratio(self.propagate, of="context", rounding="down"),
            last=self.window,
            retention=None if self.retain == 1 else PerHead(self.scorer, kept, self.window),
            name=self.title,
        )
