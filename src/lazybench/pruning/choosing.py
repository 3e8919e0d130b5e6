"""The choice of one pruning, from what the step has seen: the one place where policy, cache and step meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazybench.pruning.budgets import Mass, per_boundary
from lazybench.pruning.rows import room_for
from lazybench.pruning.scorers import over_layers
from lazybench.pruning.selection import choose, choose_chunks, ends

if TYPE_CHECKING:
    from lazybench.pruning.cache import LazyCache


def chosen_tokens(cache: LazyCache) -> tuple[Tensor, list[int]]:
    """Who goes on from the pruning layer that has just run.

    Returns:
        (batch, keys) positions, fillers where a row keeps fewer than another; and each row's number.
    """
    step, policy = cache.step, cache.policy
    assert step is not None
    plan, tokens = step.plan, step.tokens
    position, valid = plan.selected, plan.valid
    if policy.look_back == 1:
        score = next(reversed(step.scores.values()))[0].to(position.device)
    else:
        rows = [(scores.to(position.device), at) for scores, at in list(step.scores.values())[-policy.look_back :]]
        score = over_layers(rows, position, tokens, policy.over_layers)
    if policy.revival.memory:
        score = _over_steps(cache, score)

    last = policy.recent(cache.prompt_end) if tokens == cache.prompt_end else policy.last
    spared = tokens - cache.prompt_end if policy.generated == "kept" else 0  # stand outside the budget
    padding = None if cache.padding is None else [tokens - count for count in cache.candidates]
    always = ends(position, policy.first, max(last, spared), tokens, padding)
    budget = per_boundary(policy.budget, step.prunings - 1)
    if policy.chunk > 1 or isinstance(budget, Mass):
        whole = (0, 0)
        if policy.whole_chunks:
            whole = -(-policy.first // policy.chunk), -(-policy.last // policy.chunk)
            always = torch.zeros_like(always)
        return choose_chunks(
            score, position, always, budget, policy.chunk, policy.chunk_score, valid, cache.candidates, whole
        )
    counts = []
    for entered, context in zip(plan.counts, cache.candidates, strict=True):
        kept = budget.count(entered - spared, context - spared, last) + spared
        counts.append(min(entered, max(1, kept, policy.first + max(last, spared))))
    return choose(score, position, always, counts, valid, best_first=policy.revival.most is not None), counts


def _over_steps(cache: LazyCache, score: Tensor) -> Tensor:
    """The running mean of the scores over steps; a token's first score stands by itself."""
    step, memory = cache.step, cache.policy.revival.memory
    assert step is not None
    mean = room_for(cache.running_mean.get(step.prunings), step.tokens, score, fill=torch.nan)
    cache.running_mean[step.prunings] = mean  # its last column is the fillers'
    at = step.plan.selected.remainder(mean.shape[1])
    before = mean.gather(1, at)
    score = torch.where(before.isnan(), score, memory * before + (1 - memory) * score)
    valid = step.plan.valid
    mean.scatter_(1, at, score if valid is None else torch.where(valid, score, before))
    return score
