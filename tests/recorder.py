"""What a generation computed and attended to, noted layer by layer; and the same generation replayed without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lazybench.pruning.engine import Pruned


@dataclass
class Recorder:
    """What each step of one prompt's generation did: ``computed[step][layer]`` and so on, positions of tokens.

    Attributes:
        computed: the tokens that ran through the layer.
        selected: the tokens that they could attend to.
    """

    computed: list[list[list[int]]] = field(default_factory=list)
    selected: list[list[list[int]]] = field(default_factory=list)

    def visible(self, layer: int, tokens: int) -> Tensor:
        """(tokens, tokens) whether the query (row) could attend to the key (column); itself always."""
        table = torch.eye(tokens, dtype=torch.bool)
        for computed, selected in zip(self.computed, self.selected, strict=True):
            for token in computed[layer]:
                table[token, [key for key in selected[layer] if key <= token]] = True
        return table


@contextmanager
def before_each(layers: Iterable[nn.Module], act: Callable[[int, tuple, dict[str, Any]], Any]) -> Iterator[None]:
    """``act`` on a layer's number and inputs before it runs; it may return others."""
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs, at=at: act(at, args, kwargs), with_kwargs=True)
        for at, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def recording(run: Pruned) -> Iterator[Recorder]:
    """Notes every step of one ``generate`` call inside the context ``run``; batch 1."""
    recorder = Recorder()

    def note(layer: int, args: tuple, kwargs: dict[str, Any]) -> None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        plan = run._cache.follow(layer).plan
        assert hidden.shape[1] == plan.current.shape[1], "the layer ran on other rows than the engine says"
        for steps, tokens in ((recorder.computed, plan.current), (recorder.selected, plan.selected)):
            if layer == 0:
                steps.append([])
            steps[-1].append(tokens[0].tolist())

    with before_each(run._layers, note):
        yield recorder


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
    square, masks, logits = (tokens.shape[1],) * 2, [], []

    def restrict(layer: int, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        def restricted(value: Any) -> Any:
            if not (isinstance(value, Tensor) and value.dim() == 4 and value.shape[2:] == square):
                return value
            masks.append(layer)
            return value.masked_fill(~recorder.visible(layer, tokens.shape[1]), torch.finfo(value.dtype).min)

        return tuple(map(restricted, args)), {name: restricted(value) for name, value in kwargs.items()}

    head = plain_model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: logits.append(output[0]))
    with before_each(layers, restrict):
        plain_model(tokens, use_cache=False)
    hook.remove()
    assert set(masks) == set(range(len(layers))), "a layer got no mask to restrict"
    return logits[0]
