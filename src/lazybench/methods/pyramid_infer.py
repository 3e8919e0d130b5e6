"""PyramidInfer: every layer passes on a little less of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

from lazybench import pruning
from lazybench.errors import check_whole_number
from lazybench.methods.base import PolicyMethod, register
from lazybench.methods.request import TextConfig
from lazybench.pruning.budgets import share_of
from lazybench.pruning.settings import Checked, Count, Number, Share


@dataclass(frozen=True)
class FallingRatio(Checked):
    """A budget: a share of the older tokens that falls from layer to layer.

    Older are the tokens that entered the layer, less the recent ones, which all stay. Pruning at every layer, the
    shares multiply. Nothing is pruned where ``least`` or fewer would be left, or where no older token is to go.

    Args:
        keep: the share that layer number ``layers`` would keep, in (0, 1]; from all in layer 0 on along half a cosine.
        layer: 0-based index of the pruning layer.
        layers: layers of the model.
        least: older tokens below which a layer prunes nothing.
    """

    keep: Share
    layer: Number
    layers: Count
    least: Number = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number("layers", self.layers, self.layer + 1)

    def count(self, entered: int, context: int, recent: int) -> int:
        left = (cos(pi * self.layer / self.layers) + 1.0) / 2.0
        stay = share_of((1.0 - self.keep) * left + self.keep, entered - recent, "down")
        return entered if stay <= min(self.least, context - recent) else recent + stay


@register
@dataclass(frozen=True)
class PyramidInfer(PolicyMethod):
    """Each layer keeps a falling share of the context that entered it, by the attention of the prompt's last fifth.

    Source: PyramidInfer (arXiv 2405.12532), by its authors' code with its 7B config. The softmax rows of the last ``1 +
    20%`` of the queries, later ones weighing up to 1.2 times as much, are averaged over queries and heads. Those
    queries' own tokens and the first 4 always stay; of the others layer ``l`` of ``L`` passes on the share ``(1 - keep)
    (cos(pi l / L) + 1) / 2 + keep``, of what entered it: the shares multiply. Nothing is dropped where 64 or fewer
    would remain. A layer's cache keeps what entered it.

    Deviations: the code's other decay, ``linear``, is left out. Generated tokens are not compressed, nor is anything
    dropped after the last layer. Attention is SDPA's, the scored rows aside, where the authors' code makes the whole
    matrix in every layer.

    Args:
        keep: the share towards which the layers' shares fall, in (0, 1].
        recent: share of the prompt, newest tokens, that score and always stay, in (0, 1].
        newest_weight: of the newest query's row, where the oldest's is 1.
        first: tokens at the beginning that always stay.
        least: nothing is dropped where so few would remain.
        interval: one layer in so many drops tokens, from the first on (the authors' settings of 13B: 2, ``keep=0.8``).
    """

    keep: Share = 0.9
    recent: Share = 0.2
    newest_weight: float = 1.2
    first: Number = 4
    least: Number = 64
    interval: Count = 1

    name: ClassVar[str] = "pyramid_infer"
    title: ClassVar[str] = "PyramidInfer"
    drawn_as: ClassVar[tuple[str, str]] = ("#661100", "d")
    shown: ClassVar[tuple[str, ...]] = ("keep", "recent")

    def policy(self, config: TextConfig) -> pruning.Policy:
        layers = config.num_hidden_layers
        places = tuple(range(0, layers - 1, self.interval))
        return pruning.Policy(
            places,
            pruning.AttentionScorer(1, window_share=self.recent, newest_weight=self.newest_weight),
            tuple(FallingRatio(self.keep, layer, layers, self.least) for layer in places),
            first=self.first,
            last=1,
            last_share=self.recent,
        )
