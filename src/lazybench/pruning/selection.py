"""Which tokens go on to the next stage: a pure function of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lazybench.pruning.budgets import Budget, Mass


def choose(
    score: Tensor,
    position: Tensor,
    always: Tensor,
    counts: list[int],
    valid: Tensor | None = None,
) -> Tensor:
    """The ``counts`` best-scored tokens of each row, those of ``always`` first of all.

    Args:
        score: (batch, keys).
        position: (batch, keys) original positions.
        always: (batch, keys) True for tokens that stay whatever their score.
        counts: how many stay in each row, those of ``always`` included.
        valid: (batch, keys) False for padding and fillers; None when every key is a candidate.

    Returns:
        (batch, max(counts)) positions, the best first; -1 where a row keeps fewer than another.
    """
    ranked = score.masked_fill(always, torch.inf)
    if valid is not None:
        ranked = ranked.masked_fill(~valid, -torch.inf)
    keys = max(counts)
    chosen = position.gather(1, ranked.topk(keys, dim=1).indices)
    if min(counts) < keys:
        rank = torch.arange(keys, device=chosen.device)
        chosen = chosen.masked_fill(rank >= torch.tensor(counts, device=chosen.device)[:, None], -1)
    return chosen


def choose_chunks(
    score: Tensor,
    position: Tensor,
    always: Tensor,
    budget: Budget | Mass,
    chunk: int,
    reduce: Literal["sum", "mean"],
    context: Sequence[int],
    valid: Tensor | None = None,
) -> tuple[Tensor, list[int]]:
    """The best chunks of ``chunk`` tokens each, which stay or go together, and the tokens of ``always``.

    Tokens are counted in the text's order from the first candidate, so a chunk is a stretch of what has survived
    so far. The last one may be short: with ``"sum"`` it then counts for less (UniPrefill), with ``"mean"`` it does
    not (SpecPrefill). Chunks that hold tokens of ``always`` are ranked like the others.

    Args:
        budget: how many chunks; the best one always stays.
        chunk: 1: tokens by themselves (for a ``Mass`` of tokens).
        context: tokens that each row has had so far, for a share of the context.

    Returns:
        (batch, most kept) positions, the best first, -1 where a row keeps fewer; and each row's number.
        Waits for the device once: how many tokens stay depends on the scores.
    """
    batch = score.shape[0]
    real = torch.ones_like(always) if valid is None else valid
    order = position.masked_fill(~real, torch.iinfo(position.dtype).max).argsort(dim=1)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    own = rank // chunk  # (batch, keys) the chunk of each token
    entered = real.sum(dim=1)
    chunks = -(-entered // chunk)  # chunks of each row
    most = -(-order.shape[1] // chunk)
    value = score.new_zeros(batch, most).scatter_add_(1, own, score.masked_fill(~real, 0.0))
    if reduce == "mean":
        size = score.new_zeros(batch, most).scatter_add_(1, own, real.to(score.dtype))
        value = value / size.clamp(min=1)
    exists = torch.arange(most, device=order.device) < chunks[:, None]
    ranked, best = value.masked_fill(~exists, -torch.inf).sort(dim=1, descending=True)
    if isinstance(budget, Mass):
        counts = budget.counts(ranked.masked_fill(ranked == -torch.inf, 0.0))
    else:
        entering = [most] * batch if valid is None else chunks.tolist()  # a batch of unequal prompts waits once more
        so_far = [-(-tokens // chunk) for tokens in context]
        counts = chunks.new_tensor([max(1, budget.count(*both, 0)) for both in zip(entering, so_far, strict=True)])
    taken = torch.arange(most, device=order.device) < counts[:, None]
    kept_chunk = torch.zeros_like(exists).scatter_(1, best, taken & exists.gather(1, best))
    kept = (kept_chunk.gather(1, own) | always) & real
    numbers: list[int] = kept.sum(dim=1).tolist()
    return choose(score, position, always, numbers, kept), numbers


def ends(
    position: Tensor, first: int, last: Sequence[int], tokens: int, padding: Sequence[int] | None = None
) -> Tensor:
    """(batch, keys) True for the ``first`` and the ``last`` tokens of the text.

    Args:
        last: of each row.
        tokens: how many positions there are.
        padding: left padding of each row; None: none.
    """
    # one number where it can be: a tensor made on the host is one more wait
    newest = last[0] if len(set(last)) == 1 else position.new_tensor(last)[:, None]
    always = position >= tokens - newest
    if first:
        start = position.new_tensor(padding)[:, None] if any(padding or ()) else 0
        always = always | ((position >= 0) & (position < start + first))
    return always
