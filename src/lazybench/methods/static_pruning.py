"""Static token pruning: the prompt is pruned once, by what the first layers attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from lazybench.contract import Method, Request, Response
from lazybench.errors import UserError
from lazybench.methods.probe import probe_importance
from lazybench.methods.shortening import answer, check_share, kept_tokens, most_important
from lazybench.methods.under_engine import answer_pruned
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule, layers_run


@dataclass(frozen=True)
class StaticPruning(Method):
    """Prune the prompt once, by the attention of the first layers; what was dropped never comes back.

    Source: LazyLLM's table 1 (arXiv 2407.14057), "static token pruning". Its text allows two readings:

    - ``rerun``: run the first layers on the whole prompt, drop the tokens with the least attention, and run
      the model from its first layer on the rest. So the authors describe their baseline in KV Prediction
      (arXiv 2410.08391), with a quarter of the layers. Importance is the mean over the probed layers. Kept
      tokens stay in the text's order and are numbered anew: the second run sees a shorter prompt.
    - ``continue``: run the first layers on the whole prompt, prune, and go on with the rest at its original
      positions. Decoding steps attend to all tokens in the first layers, to the kept and the generated ones
      in the later layers, and revive none. Importance is that of the last of the first layers, as in LazyLLM.

    Deviations: the paper gives neither the number of layers nor whether importance is averaged over them.

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

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a depth that leaves this model no layer to save, before anything is measured."""
        if self.variant == "continue":
            LazyLLM(model, self._schedule(model))

    def run(self, request: Request) -> Response:
        if self.variant == "continue":
            return answer_pruned(request, self._schedule(request.model))
        return self._rerun(request)

    def _rerun(self, request: Request) -> Response:
        tokens, kept = request.prompt_ids.shape[1], kept_tokens(self.keep, request.prompt_ids.shape[1])
        if kept == tokens:  # nothing to choose: no probe
            return answer(request, request.prompt_ids)
        probed = self._first_layers(request.model)
        positions = most_important(probe_importance(request.model, request.prompt_ids, probed), self.keep)
        return answer(
            request,
            request.prompt_ids[:, positions],
            layer_runs_before=(tokens,) * probed,
            by_stage=(1.0 + kept / tokens, kept / tokens),
        )

    def _schedule(self, model: PreTrainedModel) -> PruningSchedule:
        return PruningSchedule((self._first_layers(model) - 1,), (self.keep,), revive=False)

    def _first_layers(self, model: PreTrainedModel) -> int:
        return layers_run(self.depth, model.config.get_text_config().num_hidden_layers)
