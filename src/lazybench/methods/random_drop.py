"""Random token drop: a random part of the prompt never reaches the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lazybench import pruning
from lazybench.methods.base import RerunMethod, register
from lazybench.methods.request import Before, Request, Tensor
from lazybench.pruning.settings import Count, Share


@register
@dataclass(frozen=True)
class RandomDrop(RerunMethod):
    """Drop prompt tokens at random, each with the same chance, before the model sees them.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "random token drop", mean of 5 runs, after Yao et al. 2022
    (random-LTD, arXiv 2211.11586).

    LazyLLM exempts no token in words, nor does it say that the chat format was dropped too. Without its role
    words a chat model answers with those words, which says nothing of the lost text: so the chat format's tokens
    stay here, the stronger reading for this rival, and ``spare_template=false`` gives the literal one. The label
    says which one ran. On prompts without a chat format (LongBench's few-shot and code tasks) the two differ
    in the begin of text alone.

    Deviations: of random-LTD only the draw is left: that method drops during training and lets the first and the
    last layers see every token. Beside the template no token is exempt, the last neither. Kept tokens stay in the
    text's order and are numbered anew: the model sees a shorter prompt.

    Args:
        keep: share of the prompt's tokens that stays, in (0, 1]; the template's are among them.
        repeats: draws per sample, each measured: the paper's five.
        spare_template: never drop the chat format's tokens and the begin of text.
    """

    keep: Share = 0.7
    repeats: Count = 5
    spare_template: bool = True

    name: ClassVar[str] = "random_drop"
    title: ClassVar[str] = "Random token drop"
    looks: ClassVar[bool] = False
    drawn_as: ClassVar[tuple[str, str]] = ("#E69F00", "s")
    shown: ClassVar[tuple[str, ...]] = ("keep", "spare_template")

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        import torch

        tokens = request.prompt_ids.shape[1]
        draw = torch.randperm(tokens, generator=torch.Generator().manual_seed(request.seed))
        kept = pruning.share_of(self.keep, tokens)
        if self.spare_template and request.template is not None:
            spared = request.template[draw]
            draw = torch.cat([draw[spared], draw[~spared]])  # the template first, the rest as it was drawn
            kept = max(kept, int(spared.sum()))
        return draw[:kept].sort().values, Before()
