"""Keys and values by slot, the Aux Cache, and what goes on from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from lazybench.errors import UserError
from lazybench.pruning.attention import MaskRule, Visibility
from lazybench.pruning.kv import Arena, pick_batch, put_rows, room_for, take_rows
from lazybench.pruning.policy import Policy
from lazybench.pruning.stage import FILLER, Plan, Stage
from lazybench.pruning.step import Step, TokenInputs
from lazybench.pruning.trace import Trace


class LazyCache(Cache):
    """The KV cache and the Aux Cache of one ``generate`` call (paper, section 3.3).

    Each token has a *frontier*: the stages it has gone through. It has keys and values in all layers of those
    stages, and one hidden state, at its frontier, in the Aux Cache. That is all it needs to go on from there,
    and the frontier only grows: no token is computed twice in a layer. One Aux buffer serves all stages,
    because the selections nest: a token left out by one pruning layer isn't there to be left out by the next.

    Example: four layers, pruning after layer 1, so two stages; a prompt of four tokens, keep ratio 0.5::

        prefill        token        0    1    2    3
                       layers 0-1   kv   kv   kv   kv     all computed
                       selected          x         x      the two most important, the last always
                       Aux Cache    h         h           hidden states after layer 1 of tokens 0 and 2
                       layers 2-3        kv        kv
        decoding step  token        0    1    2    3    4
                       layers 0-1   kv   kv   kv   kv   kv     token 4 computed, five attended to
                       selected               x    x    x      ceil(0.5 * 5): token 2 is wanted now
                       Aux Cache    h         ->               its hidden state goes along with token 4's
                       layers 2-3        kv   kv   kv   kv     2 and 4 computed, attend to 2, 3 and 4 only;
                                                               1 stays cached for a later step

    Which slot holds which token is the stage's business, see ``Stage``. A policy that revives nothing keeps no hidden
    states.

    Args:
        policy: how tokens are chosen.
        kinds: of each layer's keys and values, their device included; those of one stage and kind share a buffer.
        trace: where the steps are noted.
    """

    def __init__(self, policy: Policy, kinds: Sequence[Any], trace: Trace) -> None:
        self.policy, self.trace = policy, trace
        self.method = policy.name
        self.step: Step | None = None
        self.seen = 0  # tokens so far, padding included
        self.prompt_end = 0  # generated tokens start here
        self.candidates: list[int] = []  # tokens so far of each row of the batch, padding left out
        self.inputs = TokenInputs(policy.revives)
        self._aux: dict[torch.device, Tensor] = {}  # a pruning layer reads what it wrote itself, on its own device
        self._kinds = kinds
        self._stage_of_layer: dict[int, Stage] = {}
        self._arena_of_layer: dict[int, Arena] = {}
        edges = [0, *(layer + 1 for layer in policy.layers), len(kinds)]
        # where each prompt decides, there are two, whose layers show on the way
        self.stages = [Stage(), Stage()] if policy.settles else [Stage(range(*edge)) for edge in pairwise(edges)]

    def begin(self, batch: int, tokens: int, attention_mask: Tensor | None, device: torch.device) -> Plan:
        """The first stage takes a prompt of (batch, tokens), with ``attention_mask`` 0 at its left padding."""
        position = torch.arange(tokens, device=device).expand(batch, -1)
        self.prompt_end, self.candidates = tokens, [tokens] * batch
        if attention_mask is not None and not bool(attention_mask.all()):
            self.candidates = attention_mask.bool().sum(1).tolist()
            position = position.masked_fill(attention_mask.to(device) == 0, FILLER)
        return self.stages[0].begin(position, self.candidates)

    @property
    def stage_ranges(self) -> tuple[range, ...]:
        """The layers of each stage that has been entered: ``(range(0, 9), range(9, 18), ...)``."""
        entered = [stage for stage in self.stages if stage.counts]
        stages = [[layer for layer, its in self._stage_of_layer.items() if its is stage] for stage in entered]
        return tuple(range(min(layers, default=0), max(layers, default=-1) + 1) for layers in stages)

    def enter(self, stage: Stage, plan: Plan) -> None:
        """The step goes on to ``stage``: rows that change sides move, in all its layers at once."""
        step = self.running_step
        if plan.moves is not None:
            for arena in {id(arena): arena for arena in map(self._arena_of_layer.get, stage.layers) if arena}.values():
                arena.move(*plan.moves, stage.end)
        step.enter(stage, plan)
        trace = self.trace.steps[-1]
        trace.computed += (plan.computed,)
        trace.selected += (sum(plan.counts),)
        trace.revived += (plan.revived,)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the current tokens' keys and values; return those of the selected tokens.

        Args:
            key_states: (batch, kv_heads, current tokens, head_dim); ``value_states`` alike.

        Returns:
            (batch, kv_heads, selected tokens, head_dim), views of the buffers in slot order.

        Raises:
            UserError: outside the context that this cache comes from.
        """
        step = self.follow(layer_idx)
        stored = self.arena(layer_idx).write(layer_idx, key_states, value_states, step.plan, step.stage.end)
        return (key_states, value_states) if step.plan.in_order else stored

    def follow(self, layer: int) -> Step:
        """``layer`` runs now; the step, in the layer's stage."""
        step = self.running_step
        step.layer = layer
        stage = self._stage_of_layer.setdefault(layer, step.stage)
        if stage is not step.stage:  # a policy that revives nothing: every stage takes the new token
            self.enter(stage, stage.extend(step.start))
        return step

    def arena(self, layer: int) -> Arena:
        """Where the layer's keys and values lie."""
        if layer not in self._arena_of_layer:
            stage = self._stage_of_layer[layer]
            shared = [layer]
            if self.policy.revives:
                shared = [other for other in stage.layers if self._kinds[other] == self._kinds[layer]]
            self._arena_of_layer.update(dict.fromkeys(shared, Arena(shared)))
        return self._arena_of_layer[layer]

    def visibility(self, rule: MaskRule) -> Visibility:
        """What the current tokens see of the selected ones in the layer that runs."""
        step = self.running_step
        arena = self.arena(step.layer) if step.start else None
        return step.visibility(rule, arena.evicted, arena.forgotten) if arena else step.visibility(rule)

    def forget(self, window: int) -> None:
        """The layer that has just run sees ``window`` tokens back, itself included: what is older may go.

        Not where tokens come back, which look back from where they stand.
        """
        step = self.running_step
        arena = self.arena(step.layer)
        if not (self.policy.revives or arena.evicted):
            # slots rise with positions, so whatever was pruned, the newest slots hold all that the window does
            arena.forget(window - 1, step.stage.end)

    def put_aside(self, hidden: Tensor) -> None:
        """Aux Cache: keep the hidden states (batch, current tokens, hidden) of the tokens at their frontier."""
        step, device, alone = self.running_step, hidden.device, hidden.shape[0] == 1
        buffer = self._aux[device] = room_for(self._aux.get(device), step.tokens, hidden, None if alone else 0)
        current = step.plan.current.to(device)
        if alone and step.plan.valid is not None:  # the padding of one prompt
            current = current.remainder(buffer.shape[1])
        put_rows(buffer, current, hidden.detach())

    def fetch(self, device: torch.device) -> Tensor:
        """Aux Cache: the hidden states (batch, current tokens, hidden) to go on with, where the layer left them."""
        return take_rows(self._aux[device], self.running_step.plan.current.to(device))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values held, of all layers and rows; spare room left out."""
        total = 0
        for layer, stage in self._stage_of_layer.items():
            arena = self._arena_of_layer[layer]
            slots = stage.end - arena.forgotten
            rows = sum(min(held, slots) - arena.evicted for held in stage.held)
            total += rows * arena.bytes_per_slot // arena.num_layers
        return total

    @property
    def aux_bytes(self) -> int:
        """Bytes of the hidden states that wait in the Aux Cache: one of each token that a later stage lacks."""
        if not self._aux:
            return 0
        row = next(iter(self._aux.values()))
        waiting = sum(self.candidates) - sum(self.stages[-1].held)
        return waiting * row.shape[-1] * row.element_size()

    @property
    def running_step(self) -> Step:
        """The forward pass that is under way.

        Raises:
            UserError: none is, outside the context that this cache comes from.
        """
        if self.step is None:
            raise UserError(
                f"past_key_values was filled under {self.method} and only goes on inside that context; enter it again, "
                "or leave past_key_values out"
            )
        return self.step

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows of the batch by ``beam_idx`` (batch,), as beam search asks for it."""
        for arena in {id(arena): arena for arena in self._arena_of_layer.values()}.values():
            arena.reorder(beam_idx)
        for stage in self.stages:
            stage.reorder(beam_idx)
        self.inputs.reorder(beam_idx)
        self._aux = {device: pick_batch(buffer, beam_idx) for device, buffer in self._aux.items()}
        self.candidates = [self.candidates[row] for row in beam_idx.tolist()]

    # ---- what transformers asks of any cache, versions 5.2 to 5.24
    layers: Any = ()
    layer_class_to_replicate = None
    offloading = is_compileable = is_croppable = False
    is_initialized = True

    @property
    def batch_size(self) -> int:
        return len(self.candidates)

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)

    is_linear = is_dummy = is_sliding

    def __len__(self) -> int:
        return len(self._kinds)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"LazyCache(tokens={self.seen})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    get_query_offset, get_max_cache_shape = get_seq_length, get_max_length

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """(keys, offset) for ``query_length`` new tokens; version 5.2 passes their positions instead."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.seen + new, 0

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise UserError(f"{self.method}'s cache takes no tokens back; generate without assisted decoding")

    crop = activate_past_recording = reset = batch_select_indices = batch_repeat_interleave = _refuse
