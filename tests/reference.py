"""LazyLLM (arXiv 2407.14057, sections 3.2 to 3.4) as slowly and plainly as it can be written, for Llama-class models.

One token, one layer, one head at a time, on plain lists; no batch, no cache class, no tensor operation that
runs over tokens. It takes the weights from the model's modules and shares no code with the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass
class Reference:
    """The state of one sequence.

    Attributes:
        hidden: ``hidden[layer][token]`` is the token's state that enters ``layer``; there is none where the
            token has not been computed that far. A token that was pruned after ``layer - 1`` has its last one
            here: that is the Aux Cache.
        keys: ``keys[layer][token][head]``, for exactly the tokens that were computed in ``layer``.
        selected: per step, the tokens that each layer used.
        computed: per step, the tokens that each layer computed.
        margin: the smallest relative difference in importance between a token that was kept and one that
            was pruned; a rounding error may swap the two where it is tiny.
    """

    model: PreTrainedModel
    layers: tuple[int, ...]  # after which tokens are pruned
    keep: tuple[Fraction, ...]
    ratio_of: str = "entered"
    generated: str = "pruned"
    revive: bool = True
    prompt_tokens: int = 0
    tokens: int = 0
    hidden: list[dict[int, Tensor]] = field(default_factory=list)
    keys: list[dict[int, list[Tensor]]] = field(default_factory=list)
    values: list[dict[int, list[Tensor]]] = field(default_factory=list)
    selected: list[list[list[int]]] = field(default_factory=list)
    computed: list[list[list[int]]] = field(default_factory=list)
    margin: float = math.inf

    def __post_init__(self) -> None:
        config = self.model.config
        self.num_layers = config.num_hidden_layers
        self.query_heads = config.num_attention_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.hidden = [{} for _ in range(self.num_layers + 1)]
        self.keys = [{} for _ in range(self.num_layers)]
        self.values = [{} for _ in range(self.num_layers)]

    def prefill(self, prompt: list[int]) -> Tensor:
        """The logits of the first new token, (vocabulary,)."""
        self.prompt_tokens = len(prompt)
        return self._step(prompt)

    def decode(self, token: int) -> Tensor:
        """The logits that follow ``token``, (vocabulary,)."""
        return self._step([token])

    @torch.no_grad()
    def _step(self, new_ids: list[int]) -> Tensor:
        is_prefill = self.tokens == 0
        for token_id in new_ids:
            self.hidden[0][self.tokens] = self.model.model.embed_tokens.weight[token_id]
            self.tokens += 1
        last = self.tokens - 1
        self.selected.append([])
        self.computed.append([])

        using = list(range(self.tokens))  # every step starts with all tokens as candidates
        for layer in range(self.num_layers):
            missing = [token for token in using if token not in self.keys[layer]]
            self.selected[-1].append(using)
            self.computed[-1].append(missing)
            for token in missing:
                self._make_key_and_value(layer, token)
            for token in missing:
                self._run_layer(layer, token, [other for other in using if other <= token])
            if layer in self.layers:
                if not self.revive and not is_prefill:
                    using = [token for token in using if token in self.keys[layer + 1] or token == last]
                else:
                    using = self._select(layer, using, last)
        return self.model.lm_head.weight @ self.model.model.norm(self.hidden[self.num_layers][last])

    def _select(self, layer: int, using: list[int], last: int) -> list[int]:
        importance = dict.fromkeys(using, 0.0)
        query = self._query(layer, last)
        for head in range(self.query_heads):
            # a sliding window is ignored here: outside it every token would tie at zero
            for token, probability in zip(using, self._probabilities(layer, head, query, using), strict=True):
                importance[token] += float(probability) / self.query_heads

        ranked_over, always = using, [last]
        context = self.tokens
        if self.generated == "kept":
            ranked_over = [token for token in using if token < self.prompt_tokens]
            always += [token for token in using if token >= self.prompt_tokens]
            context = self.prompt_tokens
        of = len(ranked_over) if self.ratio_of == "entered" else context
        count = min(math.ceil(self.keep[self.layers.index(layer)] * of), len(ranked_over))
        count = max(count, 1)

        forced = [token for token in ranked_over if token in always]
        rest = sorted((token for token in ranked_over if token not in always), key=lambda token: -importance[token])
        kept, pruned = rest[: count - len(forced)], rest[count - len(forced) :]
        if kept and pruned:
            self.margin = min(self.margin, 1.0 - importance[pruned[0]] / importance[kept[-1]])
        return sorted({*always, *kept})

    def _run_layer(self, layer: int, token: int, visible: list[int]) -> None:
        block = self.model.model.layers[layer]
        if (window := self._window(layer)) is not None:
            visible = [other for other in visible if token - other < window]
        query = self._query(layer, token)
        outputs = []
        for head in range(self.query_heads):
            probabilities = self._probabilities(layer, head, query, visible)
            output = torch.zeros_like(query[head])
            for other, probability in zip(visible, probabilities, strict=True):
                output = output + probability * self.values[layer][other][head // self.group]
            outputs.append(output)
        state = self.hidden[layer][token] + block.self_attn.o_proj(torch.cat(outputs))
        mlp, normed = block.mlp, block.post_attention_layernorm(state)
        gate = mlp.gate_proj(normed)
        self.hidden[layer + 1][token] = state + mlp.down_proj(gate * torch.sigmoid(gate) * mlp.up_proj(normed))

    def _probabilities(self, layer: int, head: int, query: list[Tensor], tokens: list[int]) -> list[Tensor]:
        scores = []
        for token in tokens:
            key = self.keys[layer][token][head // self.group]
            scores.append(torch.dot(query[head], key) / math.sqrt(len(key)))
        highest = max(scores)
        exponentials = [torch.exp(score - highest) for score in scores]
        return [exponential / sum(exponentials) for exponential in exponentials]

    def _make_key_and_value(self, layer: int, token: int) -> None:
        attention = self.model.model.layers[layer].self_attn
        normed = self.model.model.layers[layer].input_layernorm(self.hidden[layer][token])
        keys = self._heads(attention.k_proj(normed), getattr(attention, "k_norm", None))
        self.keys[layer][token] = [self._rotated(key, token) for key in keys]
        self.values[layer][token] = self._heads(attention.v_proj(normed), None)

    def _query(self, layer: int, token: int) -> list[Tensor]:
        attention = self.model.model.layers[layer].self_attn
        normed = self.model.model.layers[layer].input_layernorm(self.hidden[layer][token])
        queries = self._heads(attention.q_proj(normed), getattr(attention, "q_norm", None))
        return [self._rotated(query, token) for query in queries]

    def _heads(self, projected: Tensor, norm: torch.nn.Module | None) -> list[Tensor]:
        heads = list(projected.split(self.model.model.layers[0].self_attn.head_dim))
        return heads if norm is None else [norm(head) for head in heads]

    def _rotated(self, head: Tensor, position: int) -> Tensor:
        """Rotary embedding (arXiv 2104.09864): element i and i + half turn by position * 10000^(-2i / size)."""
        size = len(head)
        half = size // 2
        turned = torch.empty_like(head)
        for i in range(half):
            angle = position * 10_000.0 ** (-2 * i / size)
            turned[i] = head[i] * math.cos(angle) - head[i + half] * math.sin(angle)
            turned[i + half] = head[i + half] * math.cos(angle) + head[i] * math.sin(angle)
        return turned

    def _window(self, layer: int) -> int | None:
        types = getattr(self.model.config, "layer_types", None)
        window = getattr(self.model.config, "sliding_window", None)
        if types is None:
            return window
        return window if types[layer] == "sliding_attention" else None
