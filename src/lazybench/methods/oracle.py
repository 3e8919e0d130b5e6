"""Oracle: tokens chosen by what the answer itself looks at. A diagnostic: what selection could reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import Request, Response, TextConfig
from lazybench.pruning.settings import Count, Odd, Share


@register
@dataclass(frozen=True)
class Oracle(PolicyMethod):
    """Prune once by the attention that the plain model's own answer pays to the prompt.

    Source: the diagnostic of CLAA (arXiv 2602.16054), as in a snapshot of its author's code: the greedy answer with
    the whole cache, each answer token's softmax over the prompt, pooled, the maximum over layers and query heads, the
    mean over answer tokens. It is no bound: other choices can do better on single samples.

    It generates before it prunes, so its TTFT says nothing and is never faster; its FLOPs ratio and its share of
    computed tokens count the pruned prefill alone, as a method that guessed these tokens for nothing would run it.

    Args:
        keep: share of the prompt that goes on, in (0, 1].
        depth: share of the model's layers that see the whole prompt.
        answer_tokens: the answer's tokens that count, at most.
        pool: length in tokens of the pooling.
        last: newest tokens that always stay.
    """

    keep: Share = 0.2
    depth: Share = 0.5
    answer_tokens: Count = 256
    pool: Odd = 13
    last: Count = 8

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "Oracle"
    drawn_as: ClassVar[tuple[str, str]] = ("#F0E442", "8")
    shown: ClassVar[tuple[str, ...]] = ("keep", "depth")
    amount: ClassVar[tuple[str, ...]] = ("keep", "depth")

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What one answer token scores the prompt by, in one layer."""
        return pruning.AttentionScorer(pool=self.pool, heads="max")

    def policy(self, config: TextConfig) -> pruning.Policy:
        """Where and how many; by what is known with the request."""
        layer = pruning.layers_run(self.depth, config.num_hidden_layers) - 1
        return pruning.Policy((layer,), budget=(pruning.Ratio(self.keep, of="context"),), last=self.last)

    def run(self, request: Request) -> Response:
        from lazybench.methods.lookahead import attention_of_answer

        model = request.model
        longest = min(self.answer_tokens, int(request.generate_kwargs.get("max_new_tokens") or self.answer_tokens))
        scores, *_ = attention_of_answer(model, request.prompt_ids, longest, self.scorer, with_prompt=False)
        return self.answer_pruned(request, replace(self.for_model(model), scorer=pruning.Given(scores)))
