"""GemFilter: one layer's last query picks tokens, and the model runs again on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import RerunMethod, register
from lazybench.methods.request import Before, Request, Tensor
from lazybench.pruning.settings import Count, Odd, Share


@register
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

    tokens: Count | None = 1024
    keep: Share | None = None
    depth: Share = 0.40625  # 13 of 32
    pool: Odd = 5

    name: ClassVar[str] = "gemfilter"
    title: ClassVar[str] = "GemFilter"
    drawn_as: ClassVar[tuple[str, str]] = ("#AA4499", "v")
    shown: ClassVar[tuple[str, ...]] = ("tokens", "keep", "depth")
    amount: ClassVar[tuple[str, ...]] = ("keep", "depth")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None:
            object.__setattr__(self, "tokens", None)

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What the filter layer's tokens are scored by."""
        return pruning.AttentionScorer(products=True, pool=self.pool)

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        from lazybench.methods.running import best_positions, everything, probed

        prompt = request.prompt_ids.shape[1]
        kept = pruning.share_of(self.keep, prompt) if self.keep is not None else self.tokens or prompt
        if kept >= prompt:  # nothing to choose: no first pass
            return everything(request), Before()
        layer = pruning.place(self.depth, request.model.config.get_text_config(), layers_more=0)
        scores, before = probed(request, [layer], self.scorer)
        return best_positions(scores, kept), before
