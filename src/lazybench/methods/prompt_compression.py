"""Prompt compression: another reader goes over the prompt first and drops what it could have guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from lazybench import pruning
from lazybench.methods.base import Method, register
from lazybench.methods.request import Model, Request, Response
from lazybench.pruning.settings import Share


@register
@dataclass(frozen=True)
class PromptCompression(Method):
    """Hand the model a prompt that a compressor has shortened; its own time is part of the TTFT.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "prompt compression": Selective Context, Li et al. 2023
    (arXiv 2310.06201). A token's self-information is ``-log p(token | what stands before it)``; a unit's is
    the mean over its tokens, as in its authors' code (their paper's formula sums). The units with the least
    are dropped.

    Deviations, in the compressor's favour or for an exact keep ratio:

    - the language model reads the whole prompt in one pass; the authors' code reads it sentence by sentence;
    - units are dropped from the least informative up as long as ``keep`` of the *tokens* remain; the authors'
      code takes a percentile of the units;
    - dropped tokens leave the prompt's ids: the rest is not joined to text and tokenised again, white space
      not normalised;
    - the chat format's tokens and special tokens are never dropped: a model that loses its role words answers
      with them, whatever the text.

    Which ``part`` gives way: its authors compress the context alone, so that the instruction and the question
    reach the model word for word. LazyLLM does not say which part it compressed.

    The compressor's time, ``Response.overhead_s``, is inside the clock on every prompt.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1]; what is never dropped is among them. Where that
            alone is more, it is all that stays.
        part: ``"context"``, the document alone, or ``"prompt"``, all but the chat format.
        unit: ``"sentence"`` or ``"token"``; the authors' noun phrases need a parser and are left out.
        language_model: hub id or folder of the model that reads; None: the model under test itself.
    """

    keep: Share = 0.5
    unit: Literal["sentence", "token"] = "sentence"
    language_model: str | None = None
    part: Literal["context", "prompt"] = "context"

    name: ClassVar[str] = "prompt_compression"
    title: ClassVar[str] = "Prompt compression"
    drawn_as: ClassVar[tuple[str, str]] = ("#CC79A7", "D")
    shown: ClassVar[tuple[str, ...]] = ("unit", "keep", "part")

    def prepare(self, model: Model) -> None:
        """Load the model that reads, where it is another one."""
        from lazybench.methods.selective_context import load

        if self.language_model is not None:
            load(self.language_model, model.device)

    def run(self, request: Request) -> Response:
        from lazybench.methods.selective_context import compress

        tokens = request.prompt_ids.shape[1]
        if pruning.share_of(self.keep, tokens) == tokens:  # nothing to drop: nothing to read
            return self.answer(request, request.prompt_ids)
        started = time.perf_counter()
        short = compress(request, self.part, self.keep, self.unit, self.language_model)
        request.synchronize()
        return self.answer(
            request,
            short.prompt_ids,
            layer_runs_before=short.layer_runs,
            other_flops=short.other_flops,
            overhead_s=time.perf_counter() - started,
        )
