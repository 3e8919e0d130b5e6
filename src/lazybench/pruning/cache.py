"""Keys and values by slot, the Aux Cache, and the token-wise inputs of the layers."""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from lazybench.errors import UserError
from lazybench.pruning.rows import pick_batch, put_rows, room_for, take_rows
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.stage import Stage
from lazybench.pruning.step import Step
from lazybench.pruning.trace import Trace


class LazyCache(Cache):
    """The KV cache and the Aux Cache of one ``generate`` call (paper, section 3.3).

    Each token has a *frontier*: the stages it has gone through. It has keys and values in all layers of those
    stages, and one hidden state, at its frontier, in the Aux Cache. That is all it needs to go on from there,
    and the frontier only grows: no token is computed twice in a layer. One Aux buffer serves all stages,
    because the selections nest: a token left out by one pruning layer isn't there to be left out by the next.
    (Where the layers lie on several devices, each device has its own.)

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

    Keys and values are stored as (batch, slots, kv_heads, head_dim) in buffers that grow ahead of need; which
    slot holds which token is the stage's business, see ``Stage``.

    Args:
        stage_of_layer: the stage of each layer; layers of one stage share the object.
        trace: where the steps are noted.
        model: whose keys and values these are.
        schedule: what decided who has them.
    """

    layers: Any = ()
    layer_class_to_replicate = None
    offloading = False
    is_compileable = False
    is_initialized = True
    is_croppable = False

    def __init__(
        self, stage_of_layer: list[Stage], trace: Trace, model: PreTrainedModel, schedule: PruningSchedule
    ) -> None:
        self.stage_of_layer = stage_of_layer
        self.trace = trace
        self.model, self.schedule = ref(model), schedule
        self.step: Step | None = None
        self.failed = False  # a forward pass ended halfway: some layers lack its keys and values
        self.unseen: Tensor | None = None  # (batch, 1) the last token that was generated, which no pass has read yet
        self.seen = 0  # tokens so far, padding included
        self.prompt_end = 0  # generated tokens start here
        self.candidates: list[int] = []  # tokens so far of each row of the batch, padding left out
        self.padding: Tensor | None = None  # (batch, prompt tokens) False for left padding; None without
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._aux: dict[torch.device, Tensor] = {}  # a pruning layer reads what it wrote itself, on its own device
        self._inputs: dict[tuple, Tensor] = {}

    def check_owner(self, model: PreTrainedModel, schedule: PruningSchedule) -> None:
        """Raises: UserError for a cache of another model or schedule, or one that a failed pass left incomplete."""
        if self.model() is not model:
            raise UserError("past_key_values comes from another model; leave it out to start from the prompt")
        if self.schedule != schedule:
            raise UserError(
                f"past_key_values was filled under {self.schedule.label}, which {schedule.label} can't go on with; "
                "leave it out to start from the prompt"
            )
        if self.failed:
            raise UserError("an earlier forward pass on this past_key_values failed halfway; start from the prompt")

    def abandon_step(self) -> None:
        """No forward pass is under way any more; one that was has failed."""
        self.failed = self.failed or self.step is not None
        self.step = None

    def goes_on(self, inputs: Tensor) -> bool:
        """Whether ``inputs`` (batch, tokens) are the last generated token: a generation taken up where it stopped."""
        return self.unseen is not None and torch.equal(self.unseen.to(inputs.device), inputs)

    def start_batch(self, batch: int, tokens: int, attention_mask: Tensor | None) -> None:
        """The first prompt: (batch, tokens), with ``attention_mask`` 0 at its left padding."""
        self.candidates = [tokens] * batch
        if attention_mask is not None and not bool(attention_mask.all()):
            self.padding = attention_mask.bool()
            self.candidates = self.padding.sum(1).tolist()

    def real_tokens(self, tokens: int) -> Tensor | None:
        """(batch, tokens) False at the padding; None without any."""
        if self.padding is None:
            return None
        return pad(self.padding, (0, tokens - self.padding.shape[1]), value=True)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the current tokens' keys and values; return those of the selected tokens.

        Args:
            key_states: (batch, kv_heads, current tokens, head_dim); ``value_states`` alike.

        Returns:
            (batch, kv_heads, selected tokens, head_dim), views of the buffers in slot order.

        Raises:
            UserError: the model does not run under LazyLLM.
        """
        if self.step is None:
            raise UserError(
                "past_key_values was filled under LazyLLM and only goes on inside that context; enter it again, "
                "or leave past_key_values out"
            )
        keys = self._store(self._keys, layer_idx, key_states)
        values = self._store(self._values, layer_idx, value_states)
        if self.step.place.square:
            return key_states, value_states
        return keys, values

    def _store(self, buffers: dict[int, Tensor], layer: int, states: Tensor) -> Tensor:
        assert self.step is not None
        place = self.step.place
        # heads before tokens: a decoding step reads each head's keys in one stretch, twice as fast as every third row
        rows = max(place.rows.stop, self.step.tokens)
        buffer = buffers[layer] = room_for(buffers.get(layer), rows, states, dim=2)
        buffer[:, :, place.rows] = states.detach()
        if place.moves is not None:
            destination, source = (index.to(buffer.device) for index in place.moves)
            put_rows(buffer, destination, take_rows(buffer, source, dim=2), dim=2)
        return buffer[:, :, : place.selected.shape[1]]

    def put_aside(self, hidden: Tensor) -> None:
        """Aux Cache: keep the hidden states (batch, current tokens, hidden) of the tokens at their frontier."""
        assert self.step is not None
        device = hidden.device
        buffer = self._aux[device] = room_for(self._aux.get(device), self.step.tokens, hidden)
        put_rows(buffer, self.step.place.current.to(device), hidden.detach())

    def fetch(self, device: torch.device) -> Tensor:
        """Aux Cache: the hidden states (batch, current tokens, hidden) of the tokens to compute next.

        Args:
            device: where the pruning layer left them.
        """
        assert self.step is not None
        return take_rows(self._aux[device], self.step.place.current.to(device))

    def token_inputs(self, name: tuple, value: Any) -> Any:
        """A layer's input with the rows of the current tokens, wherever it has one row per token.

        Rotary embeddings, position ids and the like are kept by position, because a revived token needs its
        own. Containers are walked; everything else is returned as it is.

        Args:
            name: where the layer got it, the same in every step.
        """
        assert self.step is not None
        if isinstance(value, tuple | list):
            return type(value)(self.token_inputs((*name, i), item) for i, item in enumerate(value))
        if isinstance(value, dict):
            return {key: self.token_inputs((*name, key), item) for key, item in value.items()}
        step = self.step
        batch = step.place.current.shape[0]
        per_token = isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == step.new
        if not per_token or value.shape[0] not in (1, batch):
            return value
        known = step.inputs.get(id(value))
        if known is None:
            # layers share these tensors: the first layer that brings one names it
            known = step.inputs[id(value)] = (name, value)
            rows = value.expand(batch, *value.shape[1:])
            buffer = self._inputs[name] = room_for(self._inputs.get(name), step.tokens, rows)
            buffer[:, step.start : step.tokens] = rows.detach()
        if step.is_first_stage:
            return value
        source = known[0]
        if source not in step.gathered:
            buffer = self._inputs[source]
            step.gathered[source] = take_rows(buffer, step.place.current.to(buffer.device))
        return step.gathered[source]

    # ---- the protocol of transformers' Cache, versions 5.2 to 5.23
    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_dummy(self) -> list[bool]:
        return [False] * len(self)

    @property
    def batch_size(self) -> int:
        return len(self.candidates)

    def __len__(self) -> int:
        return len(self.stage_of_layer)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"LazyCache(tokens={self.seen})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """(keys, offset) for ``query_length`` new tokens; version 5.2 passes their positions instead."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.seen + new, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows of the batch by ``beam_idx`` (batch,), as beam search asks for it."""
        self._keys = {layer: pick_batch(buffer, beam_idx) for layer, buffer in self._keys.items()}
        self._values = {layer: pick_batch(buffer, beam_idx) for layer, buffer in self._values.items()}
        self._inputs = {name: pick_batch(buffer, beam_idx) for name, buffer in self._inputs.items()}
        self._aux = {device: pick_batch(buffer, beam_idx) for device, buffer in self._aux.items()}
        for stage in set(self.stage_of_layer):
            stage.reorder(beam_idx)
        if self.padding is not None:
            self.padding = pick_batch(self.padding, beam_idx)
        self.candidates = [self.candidates[row] for row in beam_idx.tolist()]

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(len(self.candidates)).repeat_interleave(repeats))

    def crop(self, *_: Any, **__: Any) -> None:
        raise UserError("assisted decoding takes tokens back, which LazyLLM's caches can't; generate without it")

    def activate_past_recording(self) -> None:
        self.crop()

    def reset(self) -> None:
        raise UserError("LazyLLM's cache can't be reset; leave past_key_values out to start a new one")
