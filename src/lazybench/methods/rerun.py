"""Methods that choose tokens first and then run the model from its first layer on these alone."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.contract import Method, Request, Response
from lazybench.methods.shortening import answer
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy


class RerunMethod(Method):
    """A method that says which tokens the model sees; they stay in the text's order and are numbered anew."""

    @abstractmethod
    def positions(self, request: Request) -> tuple[Tensor, tuple[int, ...]]:
        """(kept,) the tokens to keep, rising; and the tokens of each layer that was run to find them."""

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a model whose attention can't be looked at, before anything is measured."""
        Pruned(model, Policy.nothing_pruned(name=type(self).__name__))

    def run(self, request: Request) -> Response:
        positions, runs_before = self.positions(request)
        kept = request.prompt_ids[:, positions.to(request.prompt_ids.device)]
        tokens, layers = request.prompt_ids.shape[1], request.model.config.get_text_config().num_hidden_layers
        share = positions.shape[0] / tokens
        probed = len(runs_before)
        by_stage = (1.0 + share, share) if 0 < probed < layers else ()
        return answer(request, kept, layer_runs_before=runs_before, by_stage=by_stage)


def everything(request: Request) -> Tensor:
    """(tokens,) every position of the prompt."""
    return torch.arange(request.prompt_ids.shape[1], device=request.prompt_ids.device)
