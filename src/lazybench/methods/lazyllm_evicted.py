"""LazyLLM at an equal memory budget: nothing comes back, and what the early layers cached is evicted as by SnapKV."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.schedule import PAPER, PruningSchedule
from lazybench.pruning.settings import Count, Odd, Share

if TYPE_CHECKING:
    from lazybench.pruning.policy import Policy


@register
@dataclass(frozen=True)
class LazyLLMEvicted(PolicyMethod):
    """LazyLLM's pruning without revival, and each KV head keeps ``retain`` of the prompt.

    Source: LazyLLM (arXiv 2407.14057) with the cache of SnapKV (arXiv 2404.14469). No paper's method: the opponent that
    LazyLLM's reviewers asked for. LazyLLM prunes late layers alone, so that its early layers hold the whole prompt;
    here these shrink too, and the Aux Cache is left out, since a token without keys and values has nowhere to return.

    Args:
        pruning: where tokens are pruned and how many stay; its revival is off, whatever it says.
        retain: share of the prompt whose keys and values each KV head keeps at most, in (0, 1]; 1: all, no eviction.
        window: newest queries that score the keys, and newest tokens that stay.
        pool: length in tokens of the pooling.
    """

    pruning: PruningSchedule = PAPER
    retain: Share = 0.5
    window: Count = 32
    pool: Odd = 5

    name: ClassVar[str] = "lazyllm_evicted"
    title: ClassVar[str] = "LazyLLM, evicted"
    drawn_as: ClassVar[tuple[str, str]] = ("#D55E00", "X")
    shown: ClassVar[tuple[str, ...]] = ("retain", "depths", "layers", "keep")
    amount: ClassVar[tuple[str, ...]] = ("retain", "keep")

    def policy(self, config: TextConfig) -> Policy:
        scorer = pruning.AttentionScorer(self.window, own_columns=False, pool=self.pool)
        kept = pruning.PerHead(scorer, pruning.Ratio(self.retain, of="context"), self.window)
        retention = None if self.retain == 1 else kept
        return replace(self.pruning, revive=False).build(config).policy(retention=retention)
