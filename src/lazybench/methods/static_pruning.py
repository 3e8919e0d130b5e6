"""Static token pruning: the prompt is pruned once, by what the first layers attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from lazybench.errors import UserError
from lazybench.measure.flops import ideal_ttft_speedup
from lazybench.methods.base import Request, Response
from lazybench.methods.lazyllm import response_of_trace
from lazybench.methods.probe import probe_importance
from lazybench.methods.shortening import check_share, generate, kept_tokens, most_important
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule, layers_run

Reading = Literal["rerun", "continue"]


@dataclass(frozen=True)
class StaticPruning:
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
        reading: ``"rerun"`` or ``"continue"``.
        keep: share of the prompt's tokens that stays, in (0, 1]; the last token always does.
        depth: share of the model's layers that see the whole prompt before it is pruned, in (0, 1]; to
            continue, below 1.
    """

    reading: Reading = "rerun"
    keep: float = 0.5
    depth: float = 0.25

    name: ClassVar[str] = "static_pruning"
    repeats: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.reading not in ("rerun", "continue"):
            raise UserError(f"static_pruning.variant={self.reading!r} is not one of rerun, continue")
        check_share("static_pruning.keep", self.keep)
        check_share("static_pruning.depth", self.depth)

    @property
    def variant(self) -> str:
        return f"{self.reading} keep={self.keep:g} depth={self.depth:g}"

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a depth that leaves this model no layer to save, before anything is measured."""
        if self.reading == "continue":
            self._schedule(model).check_depth(model.config.get_text_config().num_hidden_layers)

    def run(self, request: Request) -> Response:
        return self._rerun(request) if self.reading == "rerun" else self._continue(request)

    def _rerun(self, request: Request) -> Response:
        tokens = request.prompt_ids.shape[1]
        layers, probed = request.model.config.get_text_config().num_hidden_layers, self._first_layers(request.model)
        kept = kept_tokens(self.keep, tokens)
        if kept == tokens:  # nothing to choose: no probe
            new_tokens = generate(request, request.prompt_ids)
            return Response(new_tokens, 1.0, (1.0,), 1.0)
        positions = most_important(probe_importance(request.model, request.prompt_ids, probed), self.keep)
        new_tokens = generate(request, request.prompt_ids[:, positions])
        share = kept / tokens
        speedup = ideal_ttft_speedup(request.model.config, tokens, [tokens] * probed + [kept] * layers)
        return Response(new_tokens, probed / layers + share, (1.0 + share, share), speedup)

    def _continue(self, request: Request) -> Response:
        with LazyLLM(request.model, self._schedule(request.model)) as lazy:
            new_tokens = generate(request, request.prompt_ids)
        return response_of_trace(request, new_tokens, lazy.trace)

    def _schedule(self, model: PreTrainedModel) -> PruningSchedule:
        return PruningSchedule((self._first_layers(model) - 1,), (self.keep,), revive=False)

    def _first_layers(self, model: PreTrainedModel) -> int:
        return layers_run(self.depth, model.config.get_text_config().num_hidden_layers)


def static_pruning(variant: Reading = "rerun", keep: float = 0.5, depth: float = 0.25) -> StaticPruning:
    """The method as a config names it: ``variant`` is every method's label, so the field has another name."""
    return StaticPruning(variant, keep, depth)
