"""A look at the prompt through some of a model's layers: which tokens does the last one attend to?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.pruning.choosing import EnoughSeen, Watch
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import AttentionScorer, Scorer

EQUATION_1 = AttentionScorer()


@torch.no_grad()
def probe_layers(
    model: PreTrainedModel, prompt_ids: Tensor, layers: Sequence[int], scorer: Scorer = EQUATION_1
) -> tuple[Tensor, float]:
    """Run a plain prefill up to the attention of the last of ``layers`` and no further, and score its tokens.

    Args:
        prompt_ids: (1, prompt_tokens), on the model's device.
        layers: 0-based indices, rising.
        scorer: what the tokens are scored by in each of them; equation 1 of the paper as it is.

    Returns:
        (layers, prompt_tokens) scores on the prompt's device, and the FLOPs of the attention rows behind them. The
        last layer ran up to its queries, keys and values.

    Raises:
        UserError: the model can't run under the engine.
    """
    scores: list[Tensor] = []

    def see(seen: Seen) -> None:
        scores.append(scorer(seen)[0].to(prompt_ids.device))
        if seen.layer == layers[-1]:
            raise EnoughSeen

    watch = Watch(frozenset(layers), see, max(1, scorer.queries(prompt_ids.shape[1])))
    with Pruned(model, Policy(), watch) as run, suppress(EnoughSeen):
        model(prompt_ids)
    return torch.stack(scores), run.trace.steps[0].scoring_flops
