"""One pruning (paper, sections 3.2 and 3.3): who looks at a layer's attention, and who goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazybench.errors import UserError
from lazybench.pruning.attention import ADD_MASKS
from lazybench.pruning.budgets import Mass
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.kv import take_rows
from lazybench.pruning.places import readable_layers, windowed_layers
from lazybench.pruning.policy import Policy
from lazybench.pruning.rows import Seen, flops_of_rows
from lazybench.pruning.scorers import OutputNorm, over_layers
from lazybench.pruning.selection import choose, choose_chunks, ends


@dataclass(frozen=True)
class Watch:
    """A watcher of attention: ``see`` is called with what each of ``layers`` shows, in every forward pass.

    Args:
        layers: 0-based indices.
        see: may raise ``EnoughSeen`` to end the forward pass there.
        queries: how many of the newest queries it wants to see; their rows count as work.
    """

    layers: Collection[int]
    see: Callable[[Seen], None]
    queries: int = 1


class EnoughSeen(Exception):
    """Raised by a watcher to end a forward pass."""


class Viewers:
    """Who looks at the queries and keys of a layer: the policy's scorer, its retention, a watcher.

    Args:
        policy: whose scorer and retention look.
        watch: and who else does.
        config: of the model's text part; its layers with a sliding window keep their cache whatever the retention.
    """

    def __init__(self, policy: Policy, watch: Watch | None, config: Any) -> None:
        self.policy, self.watch, self.windowed = policy, watch, windowed_layers(config)
        self.adds_masks = config.model_type in ADD_MASKS
        scored = policy.scored(readable_layers(config))
        by_output = isinstance(policy.scorer, OutputNorm)
        self.scored: Collection[int] = () if by_output else scored
        self.normed: Collection[int] = scored if by_output else ()

    def wanted(self, cache: LazyCache) -> int:
        """How many of the newest queries anybody wants to see in the layer that runs; 0: nobody looks."""
        return max((max(1, queries) for queries in self._queries(cache).values()), default=0)

    def show(self, cache: LazyCache, kv_heads: int, **shown: Any) -> None:
        """Show what the layer shows to everybody who wants it.

        Args:
            shown: ``query`` and ``key``, or ``rows``, and what else ``Seen`` holds, with ``wanted`` queries.
        """
        step = cache.running_step
        plan, trace = step.plan, cache.trace.steps[-1]
        device = shown["rows" if "rows" in shown else "key"].device
        for viewer, queries in self._queries(cache).items():
            newest = max(1, queries)
            cut = {name: value[:, :, -newest:] for name, value in shown.items() if name in ("query", "rows")}
            seen = Seen(
                layer=step.layer,
                position=plan.selected.to(device),
                query_position=plan.current[:, -newest:].to(device),
                valid=None if plan.valid is None else plan.valid.to(device),
                in_order=plan.in_order,
                kv_heads=kv_heads,
                tokens=cache.candidates if min(cache.candidates) < step.tokens else None,
                **{"query": None, "key": None, **shown, **cut},
            )
            if viewer == "retention" and not self._evict(cache, seen):
                continue
            trace.scoring_flops += flops_of_rows(seen, queries)
            if viewer == "scorer":
                step.scores[step.layer] = self.policy.scorer(seen), plan.selected
            elif viewer == "watch" and self.watch is not None:
                self.watch.see(seen)

    def show_output(self, cache: LazyCache, output: Tensor) -> None:
        """Show a scorer of outputs what the attention of the layer that runs gave, (batch, current tokens, hidden)."""
        step = cache.running_step
        if step.scores_anew:
            plan, at = step.plan, output.device
            seen = Seen(step.layer, None, None, plan.selected.to(at), plan.current.to(at), output=output)
            step.scores[step.layer] = self.policy.scorer(seen), plan.selected
            cache.trace.steps[-1].scoring_flops += 2.0 * output.numel()

    def _queries(self, cache: LazyCache) -> dict[str, int]:
        """Who looks, and how many of the newest queries each wants to see."""
        step, policy, prompt = cache.running_step, self.policy, cache.prompt_end
        wanted = {}
        if self.watch is not None and step.layer in self.watch.layers:
            wanted["watch"] = self.watch.queries
        decided = policy.settles is not None and step.prunings > 0  # it prunes once, wherever that is
        if step.scores_anew and step.layer in self.scored and not decided:
            wanted["scorer"] = policy.scorer.queries(prompt)
        if policy.retention is not None and not (
            step.start or step.layer in self.windowed or step.layer < policy.retention.first_layers
        ):
            wanted["retention"] = policy.retention.scorer.queries(prompt)
        most = min(step.new, step.plan.current.shape[1])
        return {viewer: min(queries, most) for viewer, queries in wanted.items()}

    def _evict(self, cache: LazyCache, seen: Seen) -> bool:
        """Whether the retention leaves out any of the layer's keys and values."""
        assert self.policy.retention is not None
        if seen.valid is not None:
            raise UserError(
                f"{self.policy.name} evicts as many keys in each row of a batch; give prompts of equal length, or one "
                "prompt at a time, without padding"
            )
        kept = self.policy.retention(seen, cache.prompt_end)
        if kept is not None:
            cache.arena(seen.layer).keep(kept, cache.running_step.stage.end)
        return kept is not None


def prune(cache: LazyCache, layer: int, hidden: Tensor) -> Tensor:
    """Put the tokens that entered aside, choose, and return those that the next stage must compute.

    Args:
        hidden: (batch, current tokens, hidden), as the pruning layer left them.

    Returns:
        (batch, next current tokens, hidden): the kept and the revived, at their original positions.
    """
    step = cache.running_step
    rows, step.rows_that_go_on = step.rows_that_go_on, None  # chosen before the layer's MLP
    if rows is None:
        if step.settles is not None and (step.prunings or not step.settles(step.scores[layer][0])):
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
    entered = cache.running_step.plan.current
    enter_next_stage(cache)
    return torch.searchsorted(entered.contiguous(), cache.running_step.plan.current.contiguous())


def enter_next_stage(cache: LazyCache) -> None:
    """Choose who goes on, and let the step go on with them."""
    step, policy = cache.running_step, cache.policy
    stage, boundary = cache.stages[step.prunings + 1], step.prunings
    chosen, counts = None, list[int]()
    if step.scores_anew:
        plan, at, in_prompt = step.plan, step.plan.selected, step.start == 0
        rows = [(scores.to(at.device), places) for scores, places in list(step.scores.values())[-policy.look_back :]]
        padding = [step.tokens - count for count in cache.candidates]
        chosen, counts = goes_on(policy, boundary, rows, at, step.tokens, plan.counts, plan.valid, padding, in_prompt)
    step.prunings += 1
    if step.start == 0:
        assert chosen is not None
        cache.enter(stage, stage.begin(chosen.sort(dim=1).values, counts))
        return
    most = policy.revival.most_in(step.prunings, step.tokens - cache.prompt_end, cache.prompt_end)
    cache.enter(stage, stage.select(step, chosen, counts, most, policy.revival.attend == "computed"))


def goes_on(
    policy: Policy,
    boundary: int,
    rows: list[tuple[Tensor, Tensor]],
    position: Tensor,
    tokens: int,
    counts: list[int],
    valid: Tensor | None = None,
    padding: list[int] | None = None,
    in_prompt: bool = True,
) -> tuple[Tensor, list[int]]:
    """Who goes on from pruning number ``boundary``: a pure function of scores.

    Args:
        rows: scores of the layers that count, and the positions of their keys, both (batch, keys); the newest last.
        position: (batch, keys) of the candidates.
        tokens: how many positions there are.
        counts: candidates of each row of the batch.
        valid: (batch, keys) False for padding and fillers; None when every key is a candidate.
        padding: left padding of each row; None: none.
        in_prompt: in a prefill; ``last_share`` is of its prompt, and none of a decoding step.

    Returns:
        (batch, keys) positions, fillers where a row keeps fewer than another; and each row's number.
    """
    contexts = [tokens - before for before in padding or [0] * len(counts)]
    last = [policy.last + int(in_prompt * policy.last_share * context) for context in contexts]
    always = ends(position, policy.first, last, tokens, padding)
    score = rows[-1][0] if policy.look_back == 1 else over_layers(rows, position, tokens, policy.over_layers)
    budget = policy.budget[boundary]
    if policy.chunk > 1 or isinstance(budget, Mass):
        return choose_chunks(score, position, always, budget, policy.chunk, policy.chunk_score, contexts, valid)
    kept = [
        min(entered, max(1, policy.first + newest, budget.count(entered, context, newest)))
        for entered, context, newest in zip(counts, contexts, last, strict=True)
    ]
    return choose(score, position, always, kept, valid), kept
