"""One forward pass over a batch of requests: who goes on from a pruning, and which slots of the KV cache they take.

vLLM hands a model the new tokens of all requests in one row, prompts and single tokens of decoding steps mixed. Behind
a pruning fewer of a prompt's tokens are left: they take the first slots of the request's own blocks, at their original
positions, and the rest of its blocks stays unused there.

Example: a prompt of 6 tokens in blocks 7 and 9 of 4 slots each; 3 stay after the pruning, and a step adds one::

    layers before:  block 7: 0 1 2 3   block 9: 4 5 6 _     context 7
    layers behind:  block 7: 0 3 5 6   block 9: _ _ _ _     context 3 + 1

What a decoding step must know of a request is how many of its prompt's tokens each stage holds. ``Kept`` has that by
the request's first block: no two requests hold one at a time, and who gets it next begins with a prefill, which
overwrites the counts as it overwrites the keys. A request that was preempted is computed again, generated tokens
included: its prompt alone is scored and pruned, what was generated goes through every layer, as it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from lazybench.methods.request import Request
from lazybench.pruning.choosing import goes_on
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

    @property
    def generated(self) -> int:
        return self.tokens - self.prompt


class Pass:
    """The requests of one forward pass, pruning by pruning.

    Args:
        parts: in the order of the batch.
        position: (tokens,) of all of them; later of the rows that are left.
        table: (requests, blocks) numbers of each request's blocks.
        block: slots of a block.
        kept: counts of all requests, read and written.
    """

    def __init__(
        self, plan: Plan, parts: Sequence[Part], position: Tensor, table: Tensor, block: int, kept: Kept
    ) -> None:
        self.plan, self.parts, self.position, self.kept = plan, parts, position, kept
        self._table, self._block = table, block
        self._sizes = [part.new for part in parts]  # rows of each request that are left
        self.rows = torch.arange(sum(self._sizes), device=position.device)  # which of the batch's they are
        self.prunings = 0  # that are passed
        self.scoring_flops = 0.0
        self.prefills = any(part.prefills for part in parts)
        for part in parts:
            if part.prefills:  # counts of later stages are known as they are entered, of a whole prompt at once
                kept[part.block] = [part.prompt] * (len(plan.places) + 1 if part.whole else 1)
        self.is_plain = not any(
            not part.whole if part.prefills else set(kept[part.block]) != {part.prompt} for part in parts
        )
        if not self.prefills and plan.before is not None:
            self._number_anew(1)

    def see(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Score every prompt by what ``layer`` shows: (rows, heads, head_dim) and (rows, kv_heads, head_dim)."""
        for part, own in self._scored():
            newest = min(max(1, self.plan.policy.scorer.queries(part.prompt)), own.stop - own.start)
            at = self.position[None, own]
            shown = query[None, own.stop - newest : own.stop].transpose(1, 2), key[None, own].transpose(1, 2)
            seen = Seen(layer, *shown, at, at[:, -newest:], scaling=scaling, kv_heads=key.shape[1])
            self._score(part, seen, flops_of_rows(seen, newest))

    def see_output(self, layer: int, output: Tensor) -> None:
        """The same for a scorer of what the attention of ``layer`` gave: (rows, hidden)."""
        for part, own in self._scored():
            at = self.position[None, own]
            self._score(part, Seen(layer, None, None, at, at, output=output[None, own]), 2.0 * output[own].numel())

    def prune(self) -> Tensor:
        """Enter the next stage; which of the rows that are left go on, rising."""
        stay = []
        for part, own in zip(self.parts, self._slices(), strict=True):
            left = torch.arange(own.start, own.stop, device=self.position.device)
            if part.prefills and not part.whole:
                prompt = own.stop - own.start - part.generated
                chosen = self._choose(part, self.position[own][:prompt])
                self.kept[part.block].append(len(chosen))
                left = torch.cat([left[chosen], left[prompt:]])
            stay.append(left)
        together, self._sizes = torch.cat(stay), [len(left) for left in stay]
        self.position, self.rows = self.position[together], self.rows[together]
        self.prunings += 1
        if self.plan.before is not None:
            self._number_anew(1)
        return together

    def layout(self, stage: int) -> tuple[list[int], list[int], Tensor]:
        """Of a stage that was entered, or of any without a prompt: where its tokens are.

        Returns:
            New and context tokens of each request, and the slots of the new ones, which end its context.
        """
        queries, contexts, device = self._sizes, self._contexts(stage), self.position.device
        count = torch.tensor(queries, device=device)
        request = torch.arange(len(queries), device=device).repeat_interleave(count)
        ahead = count.cumsum(0) - torch.tensor(contexts, device=device)  # of a row's number to its place in the context
        at = torch.arange(len(request), device=device) - ahead[request]
        slots = self._table[request, at // self._block].long() * self._block + at % self._block
        return queries, contexts, slots

    def give_back(self, hidden: Tensor, tokens: int) -> Tensor:
        """(tokens, hidden): the rows at their old places, NaN for the pruned; each request's newest comes last."""
        whole = hidden.new_full((tokens, hidden.shape[1]), float("nan"))
        whole[self.rows] = hidden[: len(self.rows)]
        sizes = [part.new for part in self.parts], self._sizes
        ends, left = (torch.tensor(size, device=hidden.device).cumsum(0) - 1 for size in sizes)
        whole[ends] = hidden[left]
        return whole

    def _choose(self, part: Part, position: Tensor) -> Tensor:
        """(kept,) which of a prompt's tokens at ``position`` go on, rising."""
        if self.plan.before is not None:
            return self.plan.before.positions(_blind(part.prompt, position.device))[0]
        policy = self.plan.policy
        scores = part.scores[-policy.look_back :]
        chosen, _ = goes_on(policy, self.prunings, scores, position[None], part.prompt, [len(position)])
        return torch.searchsorted(position, chosen[0].sort().values)

    def _scored(self) -> Iterator[tuple[Part, slice]]:
        """The prompts that are pruned, and their rows among those that are left, without what was generated."""
        for part, own in zip(self.parts, self._slices(), strict=True):
            if part.prefills and not part.whole:
                yield part, slice(own.start, own.stop - part.generated)

    def _score(self, part: Part, seen: Seen, flops: float) -> None:
        part.scores.append((self.plan.policy.scorer(seen), seen.position))
        self.scoring_flops += flops

    def _slices(self) -> list[slice]:
        """The rows of each request among those that are left."""
        return [slice(*edges) for edges in pairwise(accumulate(self._sizes, initial=0))]

    def _contexts(self, stage: int) -> list[int]:
        return [self.kept[part.block][stage] + part.generated for part in self.parts]

    def _number_anew(self, stage: int) -> None:
        """Positions count what is left, as in a shorter prompt."""
        ends = zip(self._sizes, self._contexts(stage), strict=True)
        self.position = torch.cat([torch.arange(end - size, end) for size, end in ends]).to(self.position)


def _blind(prompt: int, device: torch.device) -> Request:
    """A request of which nothing but the prompt's length is known."""
    nothing: Any = None
    return Request(nothing, nothing, torch.zeros(1, prompt, dtype=torch.long, device=device), {}, seed=0)


def layers_of(plan: Plan, stage: int, num_layers: int) -> range:
    """The layers of a stage behind a pruning, counted from 1."""
    edges = [*plan.places, num_layers - 1]
    return range(edges[stage - 1] + 1, edges[stage] + 1)
