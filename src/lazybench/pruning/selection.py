"""Which tokens go on to the next stage: the top-k percentile of the last query's importance."""

from __future__ import annotations

import torch
from torch import Tensor

from lazybench.pruning.cache import LazyCache
from lazybench.pruning.rows import take_rows
from lazybench.pruning.schedule import PruningSchedule


def most_important(cache: LazyCache, schedule: PruningSchedule, boundary: int) -> tuple[Tensor, list[int]]:
    """The top-k percentile of the tokens that entered the pruning layer, the last token always among them.

    Paper, section 3.2: a token goes on if its importance is in the top ``keep`` share at this layer.

    Args:
        boundary: which of the schedule's pruning layers.

    Returns:
        (batch, keys) their positions, -1 where a row keeps fewer than another, and each row's number.
    """
    step = cache.step
    assert step is not None
    assert step.importance is not None
    place, last = step.place, step.tokens - 1
    importance = step.importance.to(place.selected.device)
    always_from, spared = last, 0
    if schedule.generated == "kept":
        # generated tokens stand outside the percentile
        spared = step.tokens - cache.prompt_end
        always_from = min(last, cache.prompt_end)
    counts = [
        schedule.kept(boundary, entered - spared, context - spared) + spared
        for entered, context in zip(place.counts, cache.candidates, strict=True)
    ]
    importance = importance.masked_fill(place.selected >= always_from, float("inf"))
    if place.valid is not None:
        importance = importance.masked_fill(~place.valid, -1.0)
    keys = max(counts)
    top = importance.topk(keys, dim=1).indices
    chosen = take_rows(place.selected, top)
    if min(counts) < keys:
        rank = torch.arange(keys, device=chosen.device)
        chosen = chosen.masked_fill(rank >= torch.tensor(counts, device=chosen.device)[:, None], -1)
    return chosen, counts
