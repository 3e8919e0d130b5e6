"""Prompt compression: the model reads the prompt first and drops the sentences that it could have guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import RerunMethod, register
from lazybench.methods.request import Before, Model, Request, Tensor
from lazybench.pruning.settings import Share


@register
@dataclass(frozen=True)
class PromptCompression(RerunMethod):
    """Hand the model a prompt whose document it has shortened itself; reading it is part of the TTFT.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "prompt compression": Selective Context, Li et al. 2023
    (arXiv 2310.06201). A token's self-information is ``-log p(token | what stands before it)``; a sentence's is
    the mean over its tokens, as in its authors' code (their paper's formula sums). The sentences with the least
    are dropped from the context, so that the instruction and the question reach the model word for word.

    Deviations, in the compressor's favour or for an exact keep ratio:

    - the model under test reads the whole prompt in one pass; the authors' code reads it sentence by sentence;
    - sentences are dropped from the least informative up as long as ``keep`` of the *tokens* remain; the authors'
      code takes a percentile of the units, and also knows noun phrases and single tokens;
    - dropped tokens leave the prompt's ids: the rest is not joined to text and tokenised again, white space
      not normalised;
    - the chat format's tokens and special tokens are never dropped: a model that loses its role words answers
      with them, whatever the text.

    LazyLLM does not say which part of the prompt it compressed, nor what read it.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1]; what is never dropped is among them. Where that
            alone is more, it is all that stays.
    """

    keep: Share = 0.5

    name: ClassVar[str] = "prompt_compression"
    title: ClassVar[str] = "Prompt compression"
    drawn_as: ClassVar[tuple[str, str]] = ("#CC79A7", "D")

    def prepare(self, model: Model) -> None:
        """Nothing to refuse: the model reads as it is."""

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        from lazybench.methods.running import everything
        from lazybench.methods.selective_context import most_informative

        tokens = request.prompt_ids.shape[1]
        if pruning.share_of(self.keep, tokens) == tokens:  # nothing to drop: nothing to read
            return everything(request), Before()
        return most_informative(request, self.keep)
