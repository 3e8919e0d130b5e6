"""One pruning (paper, sections 3.2 and 3.3): the one place where policy, cache and step meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazybench.pruning.budgets import Budget, Mass, Ratio, Tokens, per_boundary, shares_of
from lazybench.pruning.reductions import over_layers
from lazybench.pruning.rows import room_for, take_rows
from lazybench.pruning.selection import choose, choose_chunks, ends

if TYPE_CHECKING:
    from lazybench.pruning.cache import LazyCache


def prune(cache: LazyCache, layer: int, hidden: Tensor) -> Tensor:
    """Put the tokens that entered aside, choose, and return those that the next stage must compute.

    Args:
        hidden: (batch, current tokens, hidden), as the pruning layer left them.

    Returns:
        (batch, next current tokens, hidden): the kept and the revived, at their original positions.
    """
    step = cache.step
    assert step is not None
    rows, step.rows_that_go_on = step.rows_that_go_on, None  # chosen before the layer's MLP
    if rows is None:
        scores = step.scores[layer][0] if layer in step.scores else None
        if not step.decide(layer, scores):
            return hidden
        if not step.scores_anew:  # the new tokens alone, which go through every stage
            enter_next_stage(cache)
            return hidden
        if cache.policy.revives:
            cache.put_aside(hidden)
            enter_next_stage(cache)
            return cache.fetch(hidden.device)
        rows = choose_rows(cache)
    return take_rows(hidden, rows.to(hidden.device))


def choose_rows(cache: LazyCache) -> Tensor:
    """Enter the next stage; (batch, next current tokens) which rows of the current tokens go on."""
    assert cache.step is not None
    entered = cache.step.plan.current
    enter_next_stage(cache)
    return torch.searchsorted(entered.contiguous(), cache.step.plan.current.contiguous())


def enter_next_stage(cache: LazyCache) -> None:
    """Choose who goes on, and let the step go on with them."""
    step, revival = cache.step, cache.policy.revival
    assert step is not None
    step.prunings += 1
    stage = cache.stage_after(step.prunings)
    chosen, counts = chosen_tokens(cache) if step.scores_anew else (None, [])
    if step.start == 0:
        cache.enter(stage, stage.begin(chosen, counts))
        return
    like, to_all = step.plan.current, revival.attend == "computed"
    most = revival.most_in(step.prunings, cache.decoded, cache.prompt_end)
    plan = stage.select(chosen, counts, step.start, step.tokens, most, to_all, like)
    cache.enter(stage, plan)


def chosen_tokens(cache: LazyCache) -> tuple[Tensor, list[int] | Tensor]:
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
    least = max(1, policy.first + max(last, spared))
    counts: list[int] | Tensor
    if isinstance(plan.counts, Tensor):
        contexts = [context - spared for context in cache.candidates]
        kept_of = _count_on_device(budget, plan.counts - spared if spared else plan.counts, contexts, last)
        counts = (kept_of + spared if spared else kept_of).clamp(min=least).minimum(plan.counts)
    else:
        counts = []
        for entered, context in zip(plan.counts, cache.candidates, strict=True):
            kept = budget.count(entered - spared, context - spared, last) + spared
            counts.append(min(entered, max(least, kept)))
    return choose(score, position, always, counts, valid, best_first=policy.revival.capped), counts


def _count_on_device(budget: Budget, entered: Tensor, contexts: list[int], last: int) -> Tensor:
    """``budget.count`` of each row, where what entered is known on the device alone, (batch,)."""
    if isinstance(budget, Ratio) and budget.of == "entered":
        return shares_of(budget.keep, entered, budget.rounding)
    needed = contexts if isinstance(budget, Tokens | Ratio) else entered.tolist()  # these two do not ask what entered
    kept = [budget.count(count, context, last) for count, context in zip(needed, contexts, strict=True)]
    return torch.full_like(entered, kept[0]) if len(set(kept)) == 1 else entered.new_tensor(kept)


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
