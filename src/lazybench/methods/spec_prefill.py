"""SpecPrefill: a small draft model reads the prompt first, and the model sees only what its answer would look at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, RerunMethod, register
from lazybench.methods.request import Before, Model, Request, Response, Tensor, TextConfig
from lazybench.models.spec import ModelSpec
from lazybench.pruning.settings import Count, Odd, Share


@register
@dataclass(frozen=True)
class SpecPrefill(PolicyMethod, RerunMethod):
    """Chunks of the prompt that a draft model's next tokens attend to go through the model, at their own positions.

    Source: SpecPrefill (arXiv 2502.02789), by its authors' code. The draft's queries are the prompt's last token and
    the 7 that it generates next; their softmax over the prompt is averaged over 13 neighbours per layer and head, the
    maximum taken over layers and heads, the mean over queries; chunks of 32 tokens are ranked by their mean, and
    ``ceil(chunks * keep)`` go through all layers. No token is forced, not even the last. The cache holds what was run.

    The draft's time is inside the TTFT, its FLOPs inside the FLOPs ratio. Without a draft the model drafts for itself:
    what this selection could reach at best, and never faster.

    Deviations: none known at batch 1. In a batch the authors' code takes the right query for its first prompt alone.

    Args:
        keep: share of the chunks that goes on, in (0, 1] (the authors report 0.1, 0.3, 0.5, 0.7 and 0.9).
        draft: the draft model, as ``model=`` names one; a model with the same vocabulary. None: the model itself.
        lookahead: queries of the draft, the prompt's last token included.
        chunk: tokens of a chunk.
        pool: length in tokens of the pooling.
        renumber: what stays is numbered anew, so that the model is sent a shorter prompt and any engine can run it.
    """

    keep: Share = 0.3
    draft: ModelSpec | None = None
    lookahead: Count = 8
    chunk: Count = 32
    pool: Odd = 13
    renumber: bool = False

    name: ClassVar[str] = "spec_prefill"
    title: ClassVar[str] = "SpecPrefill"
    drawn_as: ClassVar[tuple[str, str]] = ("#882255", "D")
    shown: ClassVar[tuple[str, ...]] = ("keep", "draft")

    @property
    def params(self) -> dict[str, Any]:
        draft = {} if self.draft is None else {"draft": self.draft.display_name(self.draft.quantization)}
        return {**super().params, **draft}

    @classmethod
    def label_of(cls, params: Mapping[str, Any], without: Sequence[str] = ()) -> str:
        return super().label_of({"draft": "the model itself", **params}, without)

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What one of the draft's queries scores the prompt by, in one layer."""
        return pruning.AttentionScorer(pool=self.pool, heads="max")

    def policy(self, config: TextConfig) -> pruning.Policy:
        """Where and how many; by what is known with the request."""
        return pruning.Policy(
            (pruning.BEFORE_THE_FIRST,),
            budget=(pruning.Ratio(self.keep),),
            last=0,
            chunk=self.chunk,
            chunk_score="mean",
        )

    def prepare(self, model: Model) -> None:
        from lazybench.methods.lookahead import load_draft

        super().prepare(model)
        if self.draft is not None:
            load_draft(self.draft)

    def run(self, request: Request) -> Response:
        if self.renumber:
            return RerunMethod.run(self, request)
        started = time.perf_counter()
        scores, flops = self._read(request)
        request.synchronize()
        return self.answer_pruned(
            request,
            replace(self.for_model(request.model), scorer=pruning.Given(scores)),
            other_flops=flops,
            overhead_s=time.perf_counter() - started,
            read_before=1.0 if self.draft is None else 0.0,
        )

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        """Renumbered: of the best chunks."""
        from lazybench.methods.running import everything
        from lazybench.pruning.choosing import goes_on

        scores, flops = self._read(request)
        at, policy, tokens = everything(request)[None], self.for_model(request.model), scores.shape[1]
        chosen, _ = goes_on(policy, 0, [(scores, at)], at, tokens, [tokens])
        return chosen[0].sort().values, Before(flops=flops)

    def _read(self, request: Request) -> tuple[Tensor, float]:
        from lazybench.methods.lookahead import attention_of_draft

        return attention_of_draft(request, self.draft, self.lookahead, self.scorer)
