"""Who looks at the queries and keys of a layer: the policy's scorer, its retention, a watcher."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lazybench.errors import UserError
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import Seen, flops_of_rows

if TYPE_CHECKING:
    from lazybench.pruning.cache import LazyCache
    from lazybench.pruning.step import Step


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


class Look:
    """Asked by the attention function in every layer.

    Args:
        policy: whose scorer and retention look.
        watch: and who else does.
        windowed: layers with a sliding window, whose cache no retention touches.
    """

    def __init__(self, policy: Policy, watch: Watch | None, windowed: Collection[int]) -> None:
        self.policy, self.watch, self.windowed = policy, watch, windowed
        self.scored = policy.placement.scored(policy.look_back)

    def wanted(self, cache: LazyCache) -> int:
        """How many of the newest queries anybody wants to see in this layer; 0: nobody looks."""
        step, layer, wanted = cache.step, cache.step.layer, 0  # type: ignore[union-attr]
        assert step is not None
        if self._scores(step, layer):
            wanted = max(1, self.policy.scorer.queries(cache.prompt_end))
        if self._evicts(cache):
            wanted = max(wanted, self.policy.retention.queries(cache.prompt_end))  # type: ignore[union-attr]
        if self.watch is not None and layer in self.watch.layers:
            wanted = max(wanted, self.watch.queries)
        return min(wanted, step.new, step.plan.current.shape[1])

    def __call__(self, cache: LazyCache, kv_heads: int, **shown: Any) -> None:
        """Show what a layer shows to everybody who wants it.

        Args:
            shown: ``query`` and ``key``, or ``rows``, and what else ``Seen`` holds, with ``wanted`` queries.
        """
        step, layer = cache.step, cache.step.layer  # type: ignore[union-attr]
        assert step is not None
        plan = step.plan
        device = next(shown[name] for name in ("key", "rows") if name in shown).device

        def seen(queries: int) -> Seen:
            cut = {name: value[:, :, -queries:] for name, value in shown.items() if name in ("query", "rows")}
            return Seen(
                layer=layer,
                position=plan.selected.to(device),
                query_position=plan.current[:, -queries:].to(device),
                valid=None if plan.valid is None else plan.valid.to(device),
                in_order=plan.in_order,
                kv_heads=kv_heads,
                **{"query": None, "key": None, **shown, **cut},
            )

        most = min(step.new, plan.current.shape[1])
        if self.watch is not None and layer in self.watch.layers:
            queries = min(most, self.watch.queries)
            layer_shows = seen(queries)
            cache.trace.steps[-1].scoring_flops += flops_of_rows(layer_shows, queries)
            self.watch.see(layer_shows)
        if self._scores(step, layer):
            queries = min(most, self.policy.scorer.queries(cache.prompt_end))
            layer_shows = seen(max(1, queries))
            step.scores[layer] = self.policy.scorer(layer_shows), plan.selected
            cache.trace.steps[-1].scoring_flops += flops_of_rows(layer_shows, queries)
        if self._evicts(cache):
            self._evict(cache, seen, most)

    def _scores(self, step: Step, layer: int) -> bool:
        decided = self.policy.placement.fixed is None and step.prunings > 0  # it prunes once, wherever that is
        return step.scores_anew and layer in self.scored and not decided

    def _evicts(self, cache: LazyCache) -> bool:
        retention, step = self.policy.retention, cache.step
        assert step is not None
        return (
            retention is not None
            and step.start == 0
            and step.layer not in self.windowed
            and not retention.spares(step.layer)
        )

    def _evict(self, cache: LazyCache, seen: Callable[[int], Seen], most: int) -> None:
        retention, step = self.policy.retention, cache.step
        assert retention is not None
        assert step is not None
        if step.plan.valid is not None:
            raise UserError(
                "keys are evicted alike in all rows of a batch: give prompts of equal length, or one at a time"
            )
        queries = min(most, retention.queries(cache.prompt_end))
        layer_shows = seen(queries)
        kept: Tensor | None = retention(layer_shows, cache.prompt_end)
        if kept is not None:
            cache.trace.steps[-1].scoring_flops += flops_of_rows(layer_shows, queries)
            cache.arena(step.layer).keep(kept, step.stage.end)
