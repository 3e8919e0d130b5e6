"""Prompt compression: another reader goes over the prompt first and drops what it could have guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from lazybench.contract import Method, Request, Response
from lazybench.errors import UserError
from lazybench.methods import llmlingua, selective_context
from lazybench.methods.lexical_units import Unit, check_unit
from lazybench.methods.shortening import Part, answer, check_share, droppable, kept_tokens


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
        unit: ``"phrase"`` (spaCy's noun phrases, other words alone), ``"sentence"`` or ``"token"``.
        language_model: hub id or folder of the model that reads; None: the model under test itself
            (llmlingua: its own default).
        compressor: ``"selective_context"``, or ``"llmlingua"`` (LLMLingua-2, see ``methods/llmlingua.py``).
    """

    keep: float = 0.5
    unit: Unit = "phrase"
    language_model: str | None = None
    compressor: Literal["selective_context", "llmlingua"] = "selective_context"
    part: Part = "context"

    name: ClassVar[str] = "prompt_compression"

    def __post_init__(self) -> None:
        check_share("prompt_compression.keep", self.keep)
        if self.part not in ("context", "prompt"):
            raise UserError(f"prompt_compression.part={self.part!r} is not one of context, prompt")
        if self.compressor == "selective_context":
            check_unit(self.unit)
        elif self.compressor == "llmlingua":
            llmlingua.check_installed()
        else:
            raise UserError(
                f"prompt_compression.compressor={self.compressor!r} is not one of selective_context, llmlingua"
            )

    @property
    def label(self) -> str:
        how = self.unit if self.compressor == "selective_context" else self.compressor
        by = f" by={self.language_model}" if self.language_model else ""
        return f"{how} keep={self.keep:g} part={self.part}{by}"

    def prepare(self, model: PreTrainedModel) -> None:
        """Load the model that reads, where it is another one."""
        if self.compressor == "llmlingua":
            llmlingua.load(self._llmlingua_model, model.device.type)
        elif self.language_model is not None:
            selective_context.load(self.language_model, model.device)

    def run(self, request: Request) -> Response:
        tokens = request.prompt_ids.shape[1]
        if kept_tokens(self.keep, tokens) == tokens:  # nothing to drop: nothing to read
            return answer(request, request.prompt_ids)
        started = time.perf_counter()
        may_go = droppable(request, self.part)
        if self.compressor == "llmlingua":
            short = llmlingua.compress(request, may_go, self.keep, self._llmlingua_model)
        else:
            short = selective_context.compress(request, may_go, self.keep, self.unit, self.language_model)
        request.synchronize()
        overhead_s = time.perf_counter() - started
        return answer(
            request,
            short.prompt_ids,
            layer_runs_before=short.layer_runs,
            other_flops=short.other_flops,
            overhead_s=overhead_s,
        )

    @property
    def _llmlingua_model(self) -> str:
        return self.language_model or llmlingua.DEFAULT_MODEL
