"""LazyLLM itself: tokens are pruned layer by layer and come back when a later step needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.schedule import PAPER, PruningSchedule

if TYPE_CHECKING:
    from lazybench.pruning.policy import Policy


@register
@dataclass(frozen=True)
class LazyLLMMethod(PolicyMethod):
    """Progressive token pruning in the prefill and in every decoding step, with revival.

    Source: LazyLLM (arXiv 2407.14057), sections 3.2 to 3.4. Where the paper is silent, ``PruningSchedule``
    names the options; its defaults hold here.

    Args:
        pruning: the preset or the layers and keep ratios; the schedule is built for the model's depth.
    """

    pruning: PruningSchedule = PAPER

    name: ClassVar[str] = "lazyllm"
    title: ClassVar[str] = "LazyLLM"
    drawn_as: ClassVar[tuple[str, str]] = ("#D55E00", "P")
    shown: ClassVar[tuple[str, ...]] = ("depths", "layers", "keep")

    @classmethod
    def label_of(cls, params: Mapping[str, Any], without: Sequence[str] = ()) -> str:
        keep = params.get("pruning", {}).get("keep", PAPER.keep)
        return super().label_of(params, without) if any(ratio < 1 for ratio in keep) else "nothing pruned"

    def policy(self, config: TextConfig) -> Policy:
        return self.pruning.build(config).policy()
