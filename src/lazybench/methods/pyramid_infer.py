"""PyramidInfer: every layer passes on a little less of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedConfig

from lazybench.errors import UserError, check_whole_number
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import FallingRatio, check_share
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import AttentionScorer


@dataclass(frozen=True)
class PyramidInfer(PolicyMethod):
    """Each layer keeps a falling share of the context that entered it, by the attention of the prompt's last fifth.

    Source: PyramidInfer (arXiv 2405.12532), by its authors' code with its 7B config. The softmax rows of the last ``1 +
    20%`` of the queries, later ones weighing up to 1.2 times as much, are averaged over queries and heads. Those
    queries' own tokens and the first 4 always stay; of the others layer ``l`` of ``L`` passes on the share ``(1 - keep)
    (cos(pi l / L) + 1) / 2 + keep``, of what entered it: the shares multiply. Nothing is dropped where 64 or fewer
    would remain. A layer's cache keeps what entered it.

    Deviations: the code's ``linear`` decay is constant by an error in it; here it falls, and ``constant`` is the error.
    Generated tokens are not compressed, nor is anything dropped after the last layer. Attention is SDPA's, the scored
    rows aside, where the authors' code makes the whole matrix in every layer.

    Args:
        keep: the share towards which the layers' shares fall, in (0, 1].
        recent: share of the prompt, newest tokens, that score and always stay, in (0, 1].
        newest_weight: of the newest query's row, where the oldest's is 1.
        first: tokens at the beginning that always stay.
        least: nothing is dropped where so few would remain.
        decay: ``"cosine"``, ``"linear"`` or ``"constant"``.
    """

    keep: float = 0.9
    recent: float = 0.2
    newest_weight: float = 1.2
    first: int = 4
    least: int = 64
    decay: Literal["cosine", "linear", "constant"] = "cosine"

    name: ClassVar[str] = "pyramid_infer"

    def __post_init__(self) -> None:
        check_share("pyramid_infer.keep", self.keep)
        check_share("pyramid_infer.recent", self.recent)
        check_whole_number("pyramid_infer.first", self.first, 0)
        if isinstance(self.newest_weight, bool) or not isinstance(self.newest_weight, int | float):
            raise UserError(f"pyramid_infer.newest_weight={self.newest_weight!r} must be a number")
        FallingRatio(self.keep, 0, 1, least=self.least, decay=self.decay)  # refuses a bad least or decay

    @property
    def label(self) -> str:
        named = f"keep={self.keep:g} recent={self.recent:g}" + ("" if self.decay == "cosine" else f" {self.decay}")
        return named + self.others("keep", "recent", "decay")

    def policy(self, config: PreTrainedConfig) -> Policy:
        layers = config.num_hidden_layers
        places = tuple(range(layers - 1))
        return Policy(
            At(places),
            AttentionScorer(1, window_share=self.recent, newest_weight=self.newest_weight),
            tuple(FallingRatio(self.keep, layer, layers, least=self.least, decay=self.decay) for layer in places),
            first=self.first,
            last=1,
            last_share=self.recent,
            name=self.title,
        )
