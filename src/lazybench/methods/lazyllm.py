"""LazyLLM itself: tokens are pruned layer by layer and come back when a later step needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from lazybench.measure.flops import ideal_ttft_speedup
from lazybench.methods.base import Request, Response
from lazybench.methods.shortening import generate
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.trace import Trace

if TYPE_CHECKING:
    from lazybench.pruning.presets import PruningSpec


@dataclass(frozen=True)
class LazyLLMMethod:
    """Progressive token pruning in the prefill and in every decoding step, with revival.

    Source: LazyLLM (arXiv 2407.14057), sections 3.2 to 3.4. Where the paper is silent, ``PruningSchedule``
    names the options; its defaults hold here.

    Args:
        pruning: the preset or the layers and keep ratios; the schedule is built for the model's depth.
    """

    pruning: PruningSpec

    name: ClassVar[str] = "lazyllm"
    repeats: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return self.pruning.label

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a schedule that this model is too shallow for, before anything is measured."""
        depth = model.config.get_text_config().num_hidden_layers
        self.pruning.build(depth).check_depth(depth)

    def run(self, request: Request) -> Response:
        depth = request.model.config.get_text_config().num_hidden_layers
        with LazyLLM(request.model, self.pruning.build(depth)) as lazy:
            new_tokens = generate(request, request.prompt_ids)
        return response_of_trace(request, new_tokens, lazy.trace)


def response_of_trace(request: Request, new_tokens: Tensor, trace: Trace) -> Response:
    """What the engine's trace says about one generation."""
    prefill = trace.steps[0]
    tokens_per_layer = [
        tokens for stage, tokens in zip(trace.stages, prefill.computed, strict=True) for _ in stage
    ]  # (layers,)
    speedup = ideal_ttft_speedup(request.model.config, trace.prompt_tokens, tokens_per_layer)
    decoding = trace.steps[1:]
    revived = [sum(step.revived) for step in decoding]
    return Response(
        new_tokens,
        trace.prompt_tokens_computed_mean,
        trace.prompt_tokens_computed_by_stage,
        speedup,
        prompt_tokens_computed_by_step=trace.prompt_tokens_computed,
        details={"revived_tokens_per_step": sum(revived) / len(revived)} if revived else {},
    )
