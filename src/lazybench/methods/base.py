"""What a method is: it takes a prompt's token ids and generates, dropping what it can on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Response:
    """What a method gives back for one prompt."""

    new_tokens: Tensor  # (new_tokens,), long: what was generated, the prompt left out
    prompt_tokens_computed: float  # share of the prompt's tokens computed, mean over layers, 0..1 (1.25 for a rerun)
    prompt_tokens_computed_by_stage: tuple[float, ...]  # the same per stage, at the end of the generation
    ideal_ttft_speedup: float  # baseline FLOPs of the prefill over this method's
    overhead_s: float = 0.0  # a compressor's own time, already inside the TTFT
    # per generation step, per stage: cumulative share of prompt tokens computed (figure 7)
    prompt_tokens_computed_by_step: tuple[tuple[float, ...], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)  # anything worth a line in the record, JSON types


class Method(Protocol):
    """One way to shorten the prefill. A dataclass with its parameters as fields, validated at construction.

    ``name`` is the method's name in tables; ``variant`` says its parameters in a few characters
    (``"layers=8,17,26 keep=0.7,0.7,0.7"``) so that several of one method can stand in one run;
    ``repeats`` is how often a sample must run at least, for methods that draw at random.
    """

    @property
    def name(self) -> str: ...

    @property
    def repeats(self) -> int: ...

    @property
    def variant(self) -> str: ...

    def run(self, request: Request) -> Response: ...
