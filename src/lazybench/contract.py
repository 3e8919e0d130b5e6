"""What methods and measuring agree on: a method takes a request and answers with tokens and the work it ran."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Request:
    """One prompt for one method.

    ``generate_kwargs`` goes to ``model.generate`` as it is; it carries the clock (``streamer``),
    the length limits and, for teacher-forced fidelity, a logits processor. A method therefore
    generates through ``model.generate`` and hands every one of them on.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt_ids: Tensor  # (1, prompt_tokens), long, on the model's device
    generate_kwargs: dict[str, Any]
    seed: int  # the only source of randomness of a method; differs between repeats
    synchronize: Callable[[], None] = lambda: None  # waits for the device, for times a method takes itself
    # (prompt_tokens,) bool, on the CPU: the chat format's tokens and the begin of text; None: there are none
    template: Tensor | None = None
    # (prompt_tokens,) bool, on the CPU: the document's tokens; None: the task does not tell them apart
    context: Tensor | None = None


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


@dataclass(frozen=True)
class Response:
    """What a method gives back for one prompt."""

    new_tokens: Tensor  # (new_tokens,), long: what was generated, the prompt left out
    work: Work
    overhead_s: float = 0.0  # a compressor's own time, already inside the TTFT
    details: Mapping[str, Any] = field(default_factory=dict)  # anything worth a line in the record, JSON types


class Method(ABC):
    """One way to shorten the prefill: a frozen dataclass with its parameters as fields, validated at construction.

    A subclass names itself (``name: ClassVar[str]``) and runs; the rest has defaults.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The method's name in tables."""

    @property
    def label(self) -> str:
        """Its parameters in a few characters, ``"keep=0.5"``: two that choose differently must differ in it.

        Records keep it as the field ``variant``, and what has one label stands in one row.
        """
        return ""

    def others(self, *named: str) -> str:
        """For a label: `` window=8`` of each field that is neither ``named`` nor at its default."""
        known = [field for field in fields(cast(Any, self)) if field.name not in named]
        values = [(field, getattr(self, field.name)) for field in known]
        return "".join(f" {field.name}={_shown(value)}" for field, value in values if value != field.default)

    @property
    def repeats(self) -> int:
        """How often a sample must run at least; above 1 for a method that draws at random."""
        return 1

    def prepare(self, model: PreTrainedModel) -> None:  # noqa: B027 - most methods need nothing
        """Once for each model, outside the clock: refuse what can't run, make what depends on the model alone.

        A method must run without it too: it may only save time later.

        Raises:
            UserError: this model can't run with these parameters.
        """

    @abstractmethod
    def run(self, request: Request) -> Response:
        """Generate from the request's prompt."""


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_shown(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
