"""What a generation computed and attended to, noted layer by layer; and the same generation replayed without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.pruning.engine import Pruned


class Recorder:
    """What each step of one prompt's generation did: ``computed[step][layer]`` and so on, positions of tokens.

    Attributes:
        computed: the tokens that ran through the layer.
        selected: the tokens that they could attend to.
    """

    def __init__(self) -> None:
        self.computed: list[list[list[int]]] = []
        self.selected: list[list[list[int]]] = []

    def note(self, layer: int, rows: int, computed: Tensor, selected: Tensor) -> None:
        assert rows == computed.shape[1], "the layer ran on other rows than the engine says"
        if layer == 0:
            self.computed.append([])
            self.selected.append([])
        self.computed[-1].append(computed[0].tolist())
        self.selected[-1].append(selected[0].tolist())

    def visible(self, layer: int, tokens: int) -> Tensor:
        """(tokens, tokens) whether the query (row) could attend to the key (column); itself always."""
        table = torch.eye(tokens, dtype=torch.bool)
        for computed, selected in zip(self.computed, self.selected, strict=True):
            for token in computed[layer]:
                table[token, [key for key in selected[layer] if key <= token]] = True
        return table


@contextmanager
def recording(run: Pruned) -> Iterator[Recorder]:
    """Notes every step of one ``generate`` call inside the context ``run``; batch 1."""
    recorder = Recorder()
    hooks = []
    for index, layer in enumerate(run._layers):

        def note(_: Any, args: tuple, kwargs: dict[str, Any], index: int = index) -> None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            assert run._cache is not None
            plan = run._cache.follow(index).plan
            recorder.note(index, hidden.shape[1], plan.current, plan.selected)

        hooks.append(layer.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield recorder
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def dense_replay(plain_model: PreTrainedModel, layers: Any, tokens: Tensor, recorder: Recorder) -> Tensor:
    """One plain pass over all tokens, no cache and nothing pruned, in which every token sees what it saw.

    A token that a layer never computed runs along, but no one that counts looks at it.

    Args:
        plain_model: with eager attention or another that gives each layer its mask as a tensor.
        layers: its decoder layers.
        tokens: (1, tokens) prompt and generated tokens.

    Returns:
        (tokens, vocabulary) logits; those of the last prompt token and of the generated ones are meaningful.
    """
    length = tokens.shape[1]

    def restrict(value: Any, visible: Tensor) -> Any:
        if not (isinstance(value, Tensor) and value.dim() == 4 and value.shape[2:] == (length, length)):
            return value
        return value.masked_fill(~visible, torch.finfo(value.dtype).min)

    hooks, restricted, logits = [], [], []
    for index, layer in enumerate(layers):

        def before(_: Any, args: tuple, kwargs: dict[str, Any], index: int = index) -> tuple[tuple, dict[str, Any]]:
            visible = recorder.visible(index, length)
            changed = (
                tuple(restrict(arg, visible) for arg in args),
                {name: restrict(value, visible) for name, value in kwargs.items()},
            )
            values = zip([*args, *kwargs.values()], [*changed[0], *changed[1].values()], strict=True)
            restricted.append(any(old is not new for old, new in values))
            return changed

        hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
    try:
        hooks.append(plain_model.get_output_embeddings().register_forward_hook(lambda *call: logits.append(call[2][0])))
        plain_model(tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    assert all(restricted), "a layer got no mask to restrict"
    return logits[0]
