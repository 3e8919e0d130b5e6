"""GemFilter: one layer's last query picks tokens, and the model runs again on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from lazybench.contract import Request
from lazybench.errors import check_whole_number
from lazybench.methods.rerun import Before, RerunMethod, everything, probed
from lazybench.methods.shortening import best_positions
from lazybench.pruning.budgets import check_share, share_of
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import layers_run
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class GemFilter(RerunMethod):
    """The tokens that one middle layer's last query scores highest, run through the model from its first layer.

    Source: GemFilter (arXiv 2409.17422) and its authors' code. Raw query-key products of the last token, summed over
    the query heads and averaged over 5 neighbours; the best ``tokens`` go on in the text's order, numbered anew. No
    token is forced, not even the last. The filter layer is 13 of 32 for Llama 3.1 8B (19 of 40 for Mistral Nemo).

    Deviations: the first pass stops at the filter layer's attention; the authors' code runs that layer to its end and
    the output embedding after it, which are not used.

    Args:
        tokens: how many go on (the authors report 1024, 2048 and 4096).
        keep: a share of the prompt instead, in (0, 1]; None: ``tokens``.
        depth: share of the model's layers that run whole before the filter layer.
        pool: length in tokens of the pooling.
    """

    tokens: int = 1024
    keep: float | None = None
    depth: float = 0.40625  # 13 of 32
    pool: int = 5

    name: ClassVar[str] = "gemfilter"

    def __post_init__(self) -> None:
        check_whole_number("gemfilter.tokens", self.tokens)
        check_share("gemfilter.depth", self.depth)
        if self.keep is not None:
            check_share("gemfilter.keep", self.keep)
        self.scorer  # noqa: B018 - refuses a bad pool

    @property
    def label(self) -> str:
        how_many = f"tokens={self.tokens}" if self.keep is None else f"keep={self.keep:g}"
        return f"{how_many} depth={self.depth:g}" + self.others("tokens", "keep", "depth")

    @property
    def scorer(self) -> AttentionScorer:
        """What the filter layer's tokens are scored by."""
        return AttentionScorer(products=True, pool=self.pool)

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a model that shows no products."""
        Pruned(model, Policy.nothing_pruned(scorer=self.scorer, name=type(self).__name__))

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        prompt = request.prompt_ids.shape[1]
        kept = self.tokens if self.keep is None else share_of(self.keep, prompt)
        if kept >= prompt:  # nothing to choose: no first pass
            return everything(request), Before()
        layers = request.model.config.get_text_config().num_hidden_layers
        layer = min(layers_run(self.depth, layers), layers - 1)
        scores, before = probed(request, [layer], self.scorer)
        return best_positions(scores, kept), before
