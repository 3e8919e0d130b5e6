"""LazyLLM itself: tokens are pruned layer by layer and come back when a later step needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from transformers import PreTrainedModel

from lazybench.contract import Method, Request, Response
from lazybench.methods.under_engine import answer_pruned
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule

if TYPE_CHECKING:
    from lazybench.pruning.presets import PruningSpec


@dataclass(frozen=True)
class LazyLLMMethod(Method):
    """Progressive token pruning in the prefill and in every decoding step, with revival.

    Source: LazyLLM (arXiv 2407.14057), sections 3.2 to 3.4. Where the paper is silent, ``PruningSchedule``
    names the options; its defaults hold here.

    Args:
        pruning: the preset or the layers and keep ratios; the schedule is built for the model's depth.
    """

    pruning: PruningSpec

    name: ClassVar[str] = "lazyllm"

    @property
    def label(self) -> str:
        return self.pruning.label

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a model or a schedule that can't run, before anything is measured."""
        LazyLLM(model, self._schedule(model))

    def run(self, request: Request) -> Response:
        return answer_pruned(request, self._schedule(request.model))

    def _schedule(self, model: PreTrainedModel) -> PruningSchedule:
        return self.pruning.build(model.config.get_text_config().num_hidden_layers)
