"""One forward pass over a batch of requests: who goes on from a pruning, and which slots of the KV cache they take.

vLLM hands a model the new tokens of all requests in one row, prompts and single tokens of decoding steps mixed. Layers
up to the first pruning run on all of them. Behind a pruning fewer of a prompt's tokens are left: they take the first
slots of the request's own blocks, at their original positions, and the rest of its blocks stays unused there.

Example: a prompt of 6 tokens in blocks 7 and 9 of 4 slots each; 3 stay after the pruning, and a step adds one::

    layers before:  block 7: 0 1 2 3   block 9: 4 5 6 _     context 7
    layers behind:  block 7: 0 3 5 6   block 9: _ _ _ _     context 3 + 1

What a decoding step must know of a request is how many of its prompt's tokens each stage holds. ``Kept`` has that by
the request's first block: no two requests hold one at a time, and who gets it next begins with a prefill, which
overwrites the counts as it overwrites the keys. A request that was preempted is computed again, generated tokens
included: its prompt alone is scored and pruned, what was generated goes through every layer, as it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lazybench.methods.request import Request
from lazybench.pruning.choosing import goes_on
from lazybench.pruning.policy import BEFORE_THE_FIRST
from lazybench.pruning.rows import Seen, flops_of_rows
from lazybench.serving.plans import Plan

Kept = dict[int, list[int]]  # first block of a request: prompt tokens that each stage holds, the first stage's all


@dataclass
class Part:
    """What one pass runs of one request.

    Attributes:
        block: its first block.
        prompt: tokens of its prompt.
        tokens: of its context after this pass, generated ones included.
        new: tokens of this pass.
        whole: nothing of it is pruned, whatever the plan.
    """

    block: int
    prompt: int
    tokens: int
    new: int
    whole: bool = False
    scores: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # by scored layer; with their positions

    @property
    def prefills(self) -> bool:
        return self.new == self.tokens


@dataclass
class Layout:
    """Where one stage's tokens are: queries and context tokens of each request, and the slots of the new ones."""

    queries: list[int]
    contexts: list[int]
    slots: Tensor  # (sum of queries,) in the stage's KV caches


class Pass:
    """The requests of one forward pass, pruning by pruning.

    Args:
        parts: in the order of the batch.
        position: (tokens,) of all of them.
        table: (requests, blocks) numbers of each request's blocks.
        block: slots of a block.
        kept: counts of all requests, read and written.
    """

    def __init__(
        self, plan: Plan, parts: Sequence[Part], position: Tensor, table: Tensor, block: int, kept: Kept
    ) -> None:
        self.plan, self.parts, self.position, self.kept = plan, parts, position, kept
        self._table, self._block = table, block
        self.sizes = [part.new for part in parts]  # rows of each request that are left
        self.rows = torch.arange(sum(self.sizes), device=position.device)  # which of the batch's they are
        self.prunings = 0
        self.scoring_flops = 0.0
        for part in parts:
            if part.prefills:
                kept[part.block] = [part.prompt]

    @property
    def prefills(self) -> bool:
        """Some request's prompt is in it."""
        return any(part.prefills for part in self.parts)

    @property
    def changes(self) -> bool:
        """It is not what the plain model would run."""
        return any(set(self.kept[part.block]) != {part.prompt} for part in self.parts if not part.prefills) or any(
            part.prefills and not part.whole for part in self.parts
        )

    def see(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Score every prompt by what ``layer`` shows: (tokens, heads, head_dim) and (tokens, kv_heads, head_dim)."""
        for part, own in self._scored():
            newest = min(max(1, self.plan.policy.scorer.queries(part.prompt)), own.stop - own.start)
            at = self.position[None, own]
            shown = query[None, own.stop - newest : own.stop].transpose(1, 2), key[None, own].transpose(1, 2)
            seen = Seen(layer, *shown, at, at[:, -newest:], scaling=scaling, kv_heads=key.shape[1])
            self._score(part, seen, flops_of_rows(seen, newest))

    def see_output(self, layer: int, output: Tensor) -> None:
        """The same for a scorer of what the attention of ``layer`` gave: (tokens, hidden)."""
        for part, own in self._scored():
            at = self.position[None, own]
            self._score(part, Seen(layer, None, None, at, at, output=output[None, own]), 2.0 * output[own].numel())

    def prune(self) -> tuple[Tensor, Layout]:
        """Enter the next stage.

        Returns:
            Which of the rows that are left go on, rising; and where the next stage's tokens are.
        """
        stay, queries, contexts = [], [], []
        for part, own in zip(self.parts, self._slices(), strict=True):
            entered = own.stop - own.start
            if part.prefills:
                left = self._choose(part, own)
                prompt = self.kept[part.block][-1] if part.whole else len(left) - (part.tokens - part.prompt)
                self.kept[part.block].append(prompt)
            else:
                left = torch.arange(entered, device=self.position.device)
            stay.append(left + own.start)
            queries.append(len(left))
            contexts.append(self.kept[part.block][self.prunings + 1] + part.tokens - part.prompt)
        together = torch.cat(stay)
        self.position, self.rows, self.sizes = self.position[together], self.rows[together], queries
        self.prunings += 1
        if self.plan.before is not None:
            self._number_anew(contexts)
        return together, Layout(queries, contexts, self._slots(queries, contexts))

    def later_stages(self) -> list[Layout]:
        """Of a pass without a prompt: every stage behind a pruning, known beforehand."""
        layouts = []
        for stage in range(1, len(self.plan.places) + 1):
            contexts = [self.kept[part.block][stage] + part.tokens - part.prompt for part in self.parts]
            layouts.append(Layout(self.sizes, contexts, self._slots(self.sizes, contexts)))
        if self.plan.before is not None:
            self._number_anew(layouts[0].contexts)
        return layouts

    def give_back(self, hidden: Tensor, tokens: int) -> Tensor:
        """(tokens, hidden): the rows at their old places, NaN for the pruned; the newest is each request's last."""
        whole = hidden.new_full((tokens, hidden.shape[1]), float("nan"))
        whole[self.rows] = hidden[: len(self.rows)]
        ends = torch.tensor([part.new for part in self.parts], device=hidden.device).cumsum(0) - 1
        left = torch.tensor(self.sizes, device=hidden.device).cumsum(0) - 1
        whole[ends] = hidden[left]
        return whole

    def _scored(self) -> list[tuple[Part, slice]]:
        """The prompts that are pruned, and their rows among those that are left, without what was generated."""
        pairs = zip(self.parts, self._slices(), strict=True)
        return [
            (part, slice(own.start, own.start + self._prompt_rows(part, own)))
            for part, own in pairs
            if part.prefills and not part.whole
        ]

    def _score(self, part: Part, seen: Seen, flops: float) -> None:
        part.scores.append((self.plan.policy.scorer(seen), seen.position))
        self.scoring_flops += flops

    def _slices(self) -> list[slice]:
        """The rows of each request among those that are left."""
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        return [slice(*edges) for edges in pairwise(starts)]

    def _prompt_rows(self, part: Part, own: slice) -> int:
        return own.stop - own.start - (part.tokens - part.prompt)

    def _choose(self, part: Part, own: slice) -> Tensor:
        """(left,) which of a prefill's rows go on: the chosen of its prompt, and all that was generated."""
        entered, prompt, device = own.stop - own.start, self._prompt_rows(part, own), self.position.device
        everything = torch.arange(entered, device=device)
        if part.whole:
            return everything
        if self.plan.before is not None:
            left = self.plan.before.positions(_blind(part.prompt, device))[0]
        else:
            policy, position = self.plan.policy, self.position[None, own.start : own.start + prompt]
            scores = part.scores[-policy.look_back :]
            last, tokens = [policy.recent(part.prompt)], [part.prompt]
            chosen, _ = goes_on(policy, self.prunings, scores, position, part.prompt, last, tokens, [prompt])
            left = torch.searchsorted(position[0], chosen[0].sort().values)
        return torch.cat([left, everything[prompt:]])

    def _number_anew(self, contexts: list[int]) -> None:
        """Positions count what is left, as in a shorter prompt."""
        numbers = [torch.arange(end - size, end) for size, end in zip(self.sizes, contexts, strict=True)]
        self.position = torch.cat(numbers).to(self.position)

    def _slots(self, queries: list[int], contexts: list[int]) -> Tensor:
        """(sum of queries,) slots of the newest tokens of each request, which lie at the end of its context."""
        device = self.position.device
        count = torch.tensor(queries, device=device)
        request = torch.arange(len(queries), device=device).repeat_interleave(count)
        behind = count.cumsum(0) - torch.tensor(contexts, device=device)  # of the last row, how far it is ahead
        at = torch.arange(len(request), device=device) - behind[request]
        return self._table[request, at // self._block].long() * self._block + at % self._block


def _blind(prompt: int, device: torch.device) -> Any:
    """A request of which nothing but the prompt's length is known."""
    nothing: Any = None
    return Request(nothing, nothing, torch.zeros(1, prompt, dtype=torch.long, device=device), {}, seed=0)


def layers_of(plan: Plan, place: int, num_layers: int) -> range:
    """The layers behind pruning number ``place``, up to the next."""
    ends = [*plan.places[1:], num_layers - 1]
    return range(max(plan.places[place], BEFORE_THE_FIRST) + 1, ends[place] + 1)
