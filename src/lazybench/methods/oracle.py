"""Oracle: tokens chosen by what the answer itself looks at. A diagnostic: what selection could reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedConfig

from lazybench.contract import Request, Response
from lazybench.errors import check_whole_number
from lazybench.methods.lookahead import attention_of_answer
from lazybench.methods.under_engine import PolicyMethod, answer_pruned
from lazybench.pruning.budgets import Ratio, check_share
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import layers_run
from lazybench.pruning.scorers import AttentionScorer, Given


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

    keep: float = 0.2
    depth: float = 0.5
    answer_tokens: int = 256
    pool: int = 13
    last: int = 8

    name: ClassVar[str] = "oracle"

    def __post_init__(self) -> None:
        check_share("oracle.keep", self.keep)
        check_share("oracle.depth", self.depth)
        check_whole_number("oracle.answer_tokens", self.answer_tokens)
        check_whole_number("oracle.last", self.last)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        return f"keep={self.keep:g} depth={self.depth:g}" + self.others("keep", "depth")

    @property
    def scorer(self) -> AttentionScorer:
        """What one answer token scores the prompt by, in one layer."""
        return AttentionScorer(pool=self.pool, heads="query_max")

    def policy(self, config: PreTrainedConfig) -> Policy:
        """Where and how many; by what is known with the request."""
        layer = layers_run(self.depth, config.num_hidden_layers) - 1
        return Policy(At((layer,)), budget=Ratio(self.keep, of="context"), last=self.last, name=self.title)

    def run(self, request: Request) -> Response:
        model = request.model
        longest = min(self.answer_tokens, int(request.generate_kwargs.get("max_new_tokens") or self.answer_tokens))
        scores, *_ = attention_of_answer(model, request.prompt_ids, longest, self.scorer, with_prompt=False)
        policy = self.policy(model.config.get_text_config())
        return answer_pruned(request, policy.scored_by(Given(scores)))
