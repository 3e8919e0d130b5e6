"""LazyLLM itself: tokens are pruned layer by layer and come back when a later step needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedConfig

from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import PruningSchedule


@dataclass(frozen=True)
class LazyLLMMethod(PolicyMethod):
    """Progressive token pruning in the prefill and in every decoding step, with revival.

    Source: LazyLLM (arXiv 2407.14057), sections 3.2 to 3.4. Where the paper is silent, ``PruningSchedule``
    names the options; its defaults hold here.

    Args:
        pruning: the preset or the layers and keep ratios; the schedule is built for the model's depth.
    """

    pruning: PruningSchedule

    name: ClassVar[str] = "lazyllm"

    @property
    def label(self) -> str:
        return self.pruning.label

    def policy(self, config: PreTrainedConfig) -> Policy:
        return self.pruning.resolved(config).policy(name=self.title)
