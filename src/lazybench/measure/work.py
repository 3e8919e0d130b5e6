"""From the work that a method ran to what a record says of it: the FLOPs ratio and shares of the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from lazybench.methods.request import Request, Work
from lazybench.models.flops import full_prefill_flops, prefill_flops


@dataclass(frozen=True)
class WorkShares:
    """Work relative to the plain model's on the same prompt."""

    flops_ratio: float  # the plain prefill's FLOPs over the method's; above 1 saves work. No bound on the speedup
    prompt_tokens_computed: float  # share of the prompt's tokens by the end, mean over layers; 1.25 with a probe
    by_stage: tuple[float, ...]
    by_step: tuple[tuple[float, ...], ...]


def shares_of(work: Work, request: Request) -> WorkShares:
    """One rule for every method; ``request`` is what the method was asked."""
    config, tokens = request.model.config, request.prompt_ids.shape[1]
    flops = prefill_flops(config, work.tokens_of_layer_runs, work.mlp_tokens_of_layer_runs) + work.other_flops
    share = work.prompt_tokens_computed
    if share is None:
        share = sum(work.tokens_of_layer_runs) / (tokens * config.get_text_config().num_hidden_layers)
    return WorkShares(full_prefill_flops(config, tokens) / flops, share, work.by_stage or (share,), work.by_step)
