"""LazyLLM at an equal memory budget: nothing comes back, and what the early layers cached is evicted as by SnapKV."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transformers import PreTrainedConfig

from lazybench.errors import check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Ratio, check_share
from lazybench.pruning.policy import Policy
from lazybench.pruning.retention import PerHead
from lazybench.pruning.revival import THE_PAPERS
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class LazyLLMEvicted(PolicyMethod):
    """LazyLLM's pruning without revival, and each KV head keeps ``retain`` of the prompt.

    Source: LazyLLM (arXiv 2407.14057) with the cache of SnapKV (arXiv 2404.14469). No paper's method: the opponent that
    LazyLLM's reviewers asked for. LazyLLM prunes late layers alone, so that its early layers hold the whole prompt;
    here these shrink too, and the Aux Cache is left out, since a token without keys and values has nowhere to return.

    Args:
        pruning: where tokens are pruned and how many stay; its revival is off, whatever it says.
        retain: share of the prompt whose keys and values each KV head of a layer keeps at most, in (0, 1].
        window: newest queries that score the keys, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    pruning: PruningSchedule
    retain: float = 0.5
    window: int = 32
    pool: int = 5

    name: ClassVar[str] = "lazyllm_evicted"

    def __post_init__(self) -> None:
        check_share(f"{self.name}.retain", self.retain)
        check_whole_number(f"{self.name}.window", self.window)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        named = f"retain={self.retain:g} {replace(self.pruning, revive=True, revival=THE_PAPERS).label}"
        return named + self.others("retain", "pruning")

    @property
    def scorer(self) -> AttentionScorer:
        """What the keys of each head are scored by."""
        return AttentionScorer(window=self.window, own_columns=False, pool=self.pool)

    def policy(self, config: PreTrainedConfig) -> Policy:
        retention = PerHead(self.scorer, Ratio(self.retain, of="context"), self.window)
        return replace(self.pruning, revive=False).resolved(config).policy(retention=retention, name=self.title)
