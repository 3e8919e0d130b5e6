"""Static token pruning: the prompt is pruned once, by what the first layers attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lazybench import pruning
from lazybench.methods.base import PolicyMethod, RerunMethod, register
from lazybench.methods.request import Before, Request, Response, Tensor, TextConfig
from lazybench.pruning.settings import Share


@register
@dataclass(frozen=True)
class StaticPruning(PolicyMethod, RerunMethod):
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
    keep: Share = 0.5
    depth: Share = 0.25

    name: ClassVar[str] = "static_pruning"
    title: ClassVar[str] = "Static token pruning"
    drawn_as: ClassVar[tuple[str, str]] = ("#56B4E9", "^")
    shown: ClassVar[tuple[str, ...]] = ("variant", "keep", "depth")

    @property
    def only_prunes(self) -> bool:
        return self.variant == "continue"

    def policy(self, config: TextConfig) -> pruning.Policy:
        """To continue; to run again, nothing is pruned in the layers themselves."""
        if self.variant == "rerun":
            return pruning.Policy()
        return pruning.Policy((pruning.place(self.depth, config),), budget=(pruning.Ratio(self.keep),))

    def run(self, request: Request) -> Response:
        return super().run(request) if self.only_prunes else RerunMethod.run(self, request)

    def positions(self, request: Request) -> tuple[Tensor, Before]:
        from lazybench.methods.running import best_positions, everything, probed

        kept = pruning.share_of(self.keep, request.prompt_ids.shape[1])
        if kept == request.prompt_ids.shape[1]:  # nothing to choose: no probe
            return everything(request), Before()
        layers = pruning.layers_run(self.depth, request.model.config.get_text_config().num_hidden_layers)
        scores, before = probed(request, range(layers))
        return best_positions(scores.mean(0, keepdim=True), kept, last=1), before
