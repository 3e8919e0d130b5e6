"""Static token pruning: the prompt is pruned once, by what the first layers attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedConfig

from lazybench.contract import Request, Response
from lazybench.errors import UserError
from lazybench.methods.rerun import probed
from lazybench.methods.shortening import answer, best_positions
from lazybench.methods.under_engine import PolicyMethod
from lazybench.pruning.budgets import Ratio, check_share, share_of
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import layers_run


@dataclass(frozen=True)
class StaticPruning(PolicyMethod):
    """Prune the prompt once, by the attention of the first layers; what was dropped never comes back.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "static token pruning". Its text allows two readings:

    - ``rerun``: run the first layers on the whole prompt, drop the tokens with the least attention, and run
      the model from its first layer on the rest. So the authors describe their baseline in KV Prediction
      (arXiv 2410.08391), with a quarter of the layers. Importance is the mean over the probed layers. Kept
      tokens stay in the text's order and are numbered anew: the second run sees a shorter prompt.
    - ``continue``: run the first layers on the whole prompt, prune, and go on with the rest at its original
      positions. Decoding steps attend to all tokens in the first layers, to the kept and the generated ones
      in the later layers, and revive none. Importance is that of the last of the first layers, as in LazyLLM.

    Deviations: the paper gives neither the number of layers nor whether importance is averaged over them. To run
    again, the last of the first layers stops at its attention.

    Args:
        variant: ``"rerun"`` or ``"continue"``.
        keep: share of the prompt's tokens that stays, in (0, 1]; the last token always does.
        depth: share of the model's layers that see the whole prompt before it is pruned, in (0, 1]; to
            continue, below 1.
    """

    variant: Literal["rerun", "continue"] = "rerun"
    keep: float = 0.5
    depth: float = 0.25

    name: ClassVar[str] = "static_pruning"

    def __post_init__(self) -> None:
        if self.variant not in ("rerun", "continue"):
            raise UserError(f"static_pruning.variant={self.variant!r} is not one of rerun, continue")
        check_share("static_pruning.keep", self.keep)
        check_share("static_pruning.depth", self.depth)

    @property
    def label(self) -> str:
        return f"{self.variant} keep={self.keep:g} depth={self.depth:g}"

    def policy(self, config: PreTrainedConfig) -> Policy:
        """To continue; to run again, nothing is pruned in the layers themselves."""
        if self.variant == "rerun":
            return Policy.nothing_pruned(name=self.title)
        layer = layers_run(self.depth, config.num_hidden_layers) - 1
        return Policy(At((layer,)), budget=Ratio(self.keep), name=self.title)

    def run(self, request: Request) -> Response:
        return super().run(request) if self.variant == "continue" else self._rerun(request)

    def _rerun(self, request: Request) -> Response:
        tokens = request.prompt_ids.shape[1]
        kept = share_of(self.keep, tokens)
        if kept == tokens:  # nothing to choose: no probe
            return answer(request, request.prompt_ids)
        layers = layers_run(self.depth, request.model.config.get_text_config().num_hidden_layers)
        scores, before = probed(request, range(layers))
        return answer(
            request,
            request.prompt_ids[:, best_positions(scores.mean(0, keepdim=True), kept, last=1)],
            layer_runs_before=before.layer_runs,
            other_flops=before.flops,
            by_stage=(1.0 + kept / tokens, kept / tokens),
        )
