"""SpecPrefill: a small draft model reads the prompt first, and the model sees only what its answer would look at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lazybench import pruning
from lazybench.errors import UserError, check_odd
from lazybench.methods.base import PolicyMethod, Request, Response, Settings, register
from lazybench.models.spec import ModelSpec
from lazybench.pruning.settings import Count, Share

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from lazybench.pruning.policy import Policy
    from lazybench.pruning.scorers import AttentionScorer


@register
@dataclass(frozen=True)
class SpecPrefill(PolicyMethod):
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
    """

    keep: Share = 0.3
    draft: ModelSpec | None = None
    lookahead: Count = 8
    chunk: Count = 32
    pool: Count = 13

    name: ClassVar[str] = "spec_prefill"
    title: ClassVar[str] = "SpecPrefill"
    shown: ClassVar[tuple[str, ...]] = ("keep", "draft")
    settings: ClassVar[Settings] = [{"keep": keep} for keep in (0.5, 0.3, 0.15)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd("spec_prefill.pool", self.pool)

    @property
    def params(self) -> dict[str, Any]:
        draft = {} if self.draft is None else {"draft": self.draft.display_name(self.draft.quantization)}
        return {**super().params, **draft}

    @property
    def scorer(self) -> AttentionScorer:
        """What one of the draft's queries scores the prompt by, in one layer."""
        return pruning.AttentionScorer(pool=self.pool, heads="query_max")

    def policy(self, config: PreTrainedConfig) -> Policy:
        """Where and how many; by what is known with the request."""
        return pruning.Policy(
            pruning.At((pruning.BEFORE_THE_FIRST,)),
            budget=pruning.Ratio(self.keep),
            last=0,
            chunk=self.chunk,
            chunk_score="mean",
        )

    def prepare(self, model: PreTrainedModel) -> None:
        from lazybench.methods.lookahead import load_draft

        super().prepare(model)
        if self.draft is not None:
            load_draft(self.draft)

    def run(self, request: Request) -> Response:
        from lazybench.methods.lookahead import attention_of_answer
        from lazybench.methods.running import answer_pruned
        from lazybench.models.flops import full_prefill_flops
        from lazybench.pruning.checks import window_of

        started = time.perf_counter()
        drafter = request.model if self.draft is None else self._drafter(request.tokenizer)
        prompt = request.prompt_ids.to(drafter.device)
        window = window_of(drafter.config.get_text_config())
        if self.draft is not None and window is not None and prompt.shape[1] > window:
            raise UserError(
                f"spec_prefill.draft={self.draft.name} has a window of {window} tokens, the prompt {prompt.shape[1]}; "
                "choose a draft with a longer one, or model.prompt_limit_tokens="
            )
        scores, steps, rows = attention_of_answer(drafter, prompt, self.lookahead, self.scorer, with_prompt=True)
        request.synchronize()
        overhead_s = time.perf_counter() - started
        flops = rows + full_prefill_flops(drafter.config, prompt.shape[1] + steps)  # causal: a step is one more token
        policy = self.for_model(request.model).scored_by(pruning.Given(scores))
        return answer_pruned(request, policy, flops, overhead_s, read_before=1.0 if self.draft is None else 0.0)

    def _drafter(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        from lazybench.methods.lookahead import load_draft, same_vocabulary

        assert self.draft is not None
        loaded = load_draft(self.draft)
        if not same_vocabulary(loaded.tokenizer, tokenizer):
            raise UserError(
                f"spec_prefill.draft={self.draft.name} has another vocabulary than the model under test; "
                "choose a draft of the same family, or leave it out"
            )
        return loaded.model
