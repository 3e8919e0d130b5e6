"""The arithmetic of Llama-class models, one token and one head at a time, nothing over tokens.

It takes the weights from the model's modules and shares no code with the engine. Queries, keys and values are lists of
floats, and attention is loops over them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

Head = list[float]


def dot(one: Head, other: Head) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


class PlainLayers:
    """The model and what its layers have computed for one sequence.

    Attributes:
        hidden: ``hidden[layer][token]`` is the token's state that enters ``layer``; there is none where the
            token has not been computed that far. A token that was pruned after ``layer - 1`` has its last one
            here: that is the Aux Cache.
        keys: ``keys[layer][token][head]``, for exactly the tokens that were computed in ``layer``; ``values`` and
            ``queries`` alike.
        evicted: ``evicted[layer][head]``, tokens that this key-value head no longer attends to.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, config = model, model.config
        self.num_layers = config.num_hidden_layers
        self.query_heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.group = self.query_heads // self.kv_heads
        self.hidden: list[dict[int, Tensor]] = [{} for _ in range(self.num_layers + 1)]
        self.keys: list[dict[int, list[Head]]] = [{} for _ in range(self.num_layers)]
        self.values: list[dict[int, list[Head]]] = [{} for _ in range(self.num_layers)]
        self.queries: list[dict[int, list[Head]]] = [{} for _ in range(self.num_layers)]
        self.evicted: list[list[set[int]]] = [[set() for _ in range(self.kv_heads)] for _ in range(self.num_layers)]

    def embed(self, token: int, token_id: int) -> None:
        self.hidden[0][token] = self.model.model.embed_tokens.weight[token_id]

    def logits(self, token: int) -> Tensor:
        """(vocabulary,)"""
        return self.model.lm_head.weight @ self.model.model.norm(self.hidden[self.num_layers][token])

    def compute(self, layer: int, tokens: list[int], using: list[int]) -> None:
        """Run ``tokens`` through ``layer``; each attends to those of ``using`` that are not behind it."""
        for token in tokens:
            self._make_key_and_value(layer, token)
        for token in tokens:
            self._run(layer, token, [other for other in using if other <= token])

    def scores(self, layer: int, token: int, head: int, others: list[int], products: bool = False) -> list[float]:
        """One head's attention of ``token`` to ``others``, as if there were no sliding window; or raw products."""
        query = self._query(layer, token)[head]
        if products:
            return [dot(query, self.keys[layer][other][head // self.group]) for other in others]
        return self._probabilities(layer, head, query, others)

    def change(self, layer: int, token: int, using: list[int]) -> float:
        """The length of what the layer's attention adds to the token's state."""
        attended = self._attended(layer, token, [other for other in using if other <= token])
        return math.sqrt(sum(float(value) ** 2 for value in self.model.model.layers[layer].self_attn.o_proj(attended)))

    def window(self, layer: int) -> int | None:
        """The layer's sliding window."""
        types = getattr(self.model.config, "layer_types", None)
        window = getattr(self.model.config, "sliding_window", None)
        if types is None:
            return window
        return window if types[layer] == "sliding_attention" else None

    def _run(self, layer: int, token: int, visible: list[int]) -> None:
        block = self.model.model.layers[layer]
        state = self.hidden[layer][token] + block.self_attn.o_proj(self._attended(layer, token, visible))
        mlp, normed = block.mlp, block.post_attention_layernorm(state)
        gate = mlp.gate_proj(normed)
        self.hidden[layer + 1][token] = state + mlp.down_proj(gate * torch.sigmoid(gate) * mlp.up_proj(normed))

    def _attended(self, layer: int, token: int, visible: list[int]) -> Tensor:
        """(heads * head_dim,)"""
        if (window := self.window(layer)) is not None:
            visible = [other for other in visible if token - other < window]
        outputs = []
        for head, query in enumerate(self._query(layer, token)):
            kv_head = head // self.group
            seen = [other for other in visible if other not in self.evicted[layer][kv_head]]
            output = [0.0] * len(query)
            for other, probability in zip(seen, self._probabilities(layer, head, query, seen), strict=True):
                for place, value in enumerate(self.values[layer][other][kv_head]):
                    output[place] += probability * value
            outputs += output
        return torch.tensor(outputs, dtype=self.hidden[layer][token].dtype)

    def _probabilities(self, layer: int, head: int, query: Head, tokens: list[int]) -> list[float]:
        keys = [self.keys[layer][token][head // self.group] for token in tokens]
        scores = [dot(query, key) / math.sqrt(len(key)) for key in keys]
        highest = max(scores)
        exponentials = [math.exp(score - highest) for score in scores]
        total = sum(exponentials)
        return [exponential / total for exponential in exponentials]

    def _make_key_and_value(self, layer: int, token: int) -> None:
        attention = self.model.model.layers[layer].self_attn
        normed = self.model.model.layers[layer].input_layernorm(self.hidden[layer][token])
        keys = self._heads(attention, attention.k_proj(normed), "k_norm")
        self.keys[layer][token] = [self._rotated(key, token) for key in keys]
        self.values[layer][token] = self._heads(attention, attention.v_proj(normed))

    def _query(self, layer: int, token: int) -> list[Head]:
        if token not in self.queries[layer]:
            attention = self.model.model.layers[layer].self_attn
            normed = self.model.model.layers[layer].input_layernorm(self.hidden[layer][token])
            queries = self._heads(attention, attention.q_proj(normed), "q_norm")
            self.queries[layer][token] = [self._rotated(query, token) for query in queries]
        return self.queries[layer][token]

    def _heads(self, attention: torch.nn.Module, projected: Tensor, norm: str = "") -> list[Head]:
        heads, norm = projected.split(attention.head_dim), getattr(attention, norm, None)
        return [(head if norm is None else norm(head)).tolist() for head in heads]

    def _rotated(self, head: Head, position: int) -> Head:
        """Rotary embedding (arXiv 2104.09864): element i and i + half turn by position * 10000^(-2i / size)."""
        size = len(head)
        half = size // 2
        turned = [0.0] * size
        for i in range(half):
            angle = position * 10_000.0 ** (-2 * i / size)
            turned[i] = head[i] * math.cos(angle) - head[i + half] * math.sin(angle)
            turned[i + half] = head[i + half] * math.cos(angle) + head[i] * math.sin(angle)
        return turned
