"""Methods that choose tokens first and then run the model from its first layer on these alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.contract import Method, Request, Response
from lazybench.methods.shortening import answer
from lazybench.models.flops import projections_flops
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy
from lazybench.pruning.probe import EQUATION_1, probe
from lazybench.pruning.scorers import Scorer


@dataclass(frozen=True)
class Before:
    """What ran to find the tokens that stay.

    Args:
        layer_runs: tokens of each layer that ran whole.
        flops: of what ran beside these.
    """

    layer_runs: tuple[int, ...] = ()
    flops: float = 0.0


def probed(request: Request, layers: Sequence[int], scorer: Scorer = EQUATION_1) -> tuple[Tensor, Before]:
    """``probe`` on the request's prompt: (layers, prompt_tokens) scores, and what that ran."""
    tokens = request.prompt_ids.shape[1]
    scores, rows = probe(request.model, request.prompt_ids, layers, scorer)
    return scores, Before((tokens,) * layers[-1], rows + projections_flops(request.model.config, tokens))


class RerunMethod(Method):
    """A method that says which tokens the model sees; they stay in the text's order and are numbered anew."""

    @abstractmethod
    def positions(self, request: Request) -> tuple[Tensor, Before]:
        """(kept,) the tokens to keep, rising; and what was run to find them."""

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a model whose attention can't be looked at, before anything is measured."""
        Pruned(model, Policy.nothing_pruned(name=type(self).__name__))

    def run(self, request: Request) -> Response:
        positions, before = self.positions(request)
        kept = request.prompt_ids[:, positions.to(request.prompt_ids.device)]
        tokens, layers = request.prompt_ids.shape[1], request.model.config.get_text_config().num_hidden_layers
        share = positions.shape[0] / tokens
        by_stage = (1.0 + share, share) if 0 < len(before.layer_runs) < layers else ()
        runs = before.layer_runs
        return answer(request, kept, layer_runs_before=runs, other_flops=before.flops, by_stage=by_stage)


def everything(request: Request) -> Tensor:
    """(tokens,) every position of the prompt."""
    return torch.arange(request.prompt_ids.shape[1], device=request.prompt_ids.device)
