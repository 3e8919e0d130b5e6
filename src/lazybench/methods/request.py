"""What a method is asked, what it answers, and what it ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    import transformers

    from lazybench.pruning.policy import Policy

# names for annotations: a method's module needs neither torch nor transformers for them
Tensor: TypeAlias = "torch.Tensor"
Model: TypeAlias = "transformers.PreTrainedModel"
TextConfig: TypeAlias = "transformers.PreTrainedConfig"  # of the model's text part


@dataclass(frozen=True)
class Request:
    """One prompt for one method.

    ``generate_kwargs`` goes to ``model.generate`` as it is; it carries the clock (``streamer``),
    the length limits and, for teacher-forced fidelity, a logits processor. A method therefore
    generates through ``model.generate`` and hands every one of them on.
    """

    model: Model
    tokenizer: transformers.PreTrainedTokenizerBase
    prompt_ids: Tensor  # (1, prompt_tokens), long, on the model's device
    generate_kwargs: dict[str, Any]
    seed: int  # the only source of randomness of a method; differs between repeats
    synchronize: Callable[[], None] = lambda: None  # waits for the device, for times a method takes itself
    # (prompt_tokens,) bool, on the CPU: the chat format's tokens and the begin of text; None: there are none
    template: Tensor | None = None
    # (prompt_tokens,) bool, on the CPU: the document's tokens; None: the task does not tell them apart
    context: Tensor | None = None
    engine: Engine | None = None  # who generates in the model's place; None: the model itself


@dataclass(frozen=True)
class Work:
    """What a method ran. ``measure/work.py`` turns it into FLOPs and shares, by one rule for all methods.

    Attributes:
        tokens_of_layer_runs: tokens that each layer run of the prefill computed, ``(tokens,) * layers`` for the
            plain model. A layer that runs twice (in a probe, then in the rerun) is listed twice.
        mlp_tokens_of_layer_runs: the same for the MLPs alone, when tokens are dropped between a layer's
            attention and its MLP; None: as many as in the attention.
        other_flops: FLOPs of anything else before the first token: a draft model, a compressor, the attention rows
            that tokens are scored by.
        prompt_tokens_computed: share of the prompt's tokens computed by the end of the generation, mean over
            layers, for a method that revives tokens in decoding steps; None: what the prefill computed is all.
        by_stage: that share for each stage of layers; empty: there are no stages.
        by_step: ``by_stage`` after each generation step, the prefill first, cumulative (figure 7).
        revived_tokens_per_step: mean over the decoding steps, summed over stages; None: no decoding step, or a
            method that revives nothing by design.
        kv_bytes_prefill: bytes of the KV cache after the prefill; None where the method does not say.
        kv_bytes_end: the same at the end of the generation.
        aux_bytes_prefill: bytes of the Aux Cache (hidden states of dropped tokens) after the prefill.
        aux_bytes_end: the same at the end of the generation.
    """

    tokens_of_layer_runs: tuple[int, ...]
    mlp_tokens_of_layer_runs: tuple[int, ...] | None = None
    other_flops: float = 0.0
    prompt_tokens_computed: float | None = None
    by_stage: tuple[float, ...] = ()
    by_step: tuple[tuple[float, ...], ...] = ()
    revived_tokens_per_step: float | None = None
    kv_bytes_prefill: int | None = None
    kv_bytes_end: int | None = None
    aux_bytes_prefill: int | None = None
    aux_bytes_end: int | None = None


class Engine(Protocol):
    """Another engine with the same weights, under the same clock."""

    def plain(self, request: Request, prompt_ids: Tensor) -> tuple[Tensor, int, int]:
        """What it generates from ``prompt_ids``, (new_tokens,); bytes of its KV cache after the prefill, at the end."""

    def pruned(self, request: Request, policy: Policy) -> tuple[Tensor, Work]:
        """What it generates from the request's prompt while it prunes, and what that ran."""


@dataclass(frozen=True)
class Response:
    """What a method gives back for one prompt."""

    new_tokens: Tensor  # (new_tokens,), long: what was generated, the prompt left out
    work: Work
    overhead_s: float = 0.0  # the time to choose what the model sees, already inside the TTFT


@dataclass(frozen=True)
class Before:
    """What ran to find the tokens that stay.

    Args:
        layer_runs: tokens of each layer that ran whole.
        flops: of what ran beside these.
    """

    layer_runs: tuple[int, ...] = ()
    flops: float = 0.0
