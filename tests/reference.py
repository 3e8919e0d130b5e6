"""Any policy's prefill and decoding as slowly and plainly as they can be written, for Llama-class models.

One token, one layer, one head at a time, on plain lists: no batch, no cache class, no tensor operation that runs
over tokens, no code of the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from reference_choice import (
    Margin,
    Scores,
    best,
    choose,
    count_of,
    over_layers,
    rank_variance,
    score_of_head,
    score_of_layer,
)
from reference_layers import PlainLayers
from torch import Tensor
from transformers import PreTrainedModel

from lazybench.methods.asl import WhereRanksSettle
from lazybench.pruning.policy import PerHead, Policy
from lazybench.pruning.scorers import AttentionScorer, Given, OutputNorm


@dataclass
class Reference:
    """One sequence under a policy.

    Attributes:
        selected: per step, the tokens that each layer used.
        computed: per step, the tokens that each layer computed.
        margin: how near any choice came to another one; a rounding error may turn it where this is tiny.
    """

    model: PreTrainedModel
    policy: Policy
    tokens: int = 0
    prompt_tokens: int = 0
    decoded: int = 0
    selected: list[list[list[int]]] = field(default_factory=list)
    computed: list[list[list[int]]] = field(default_factory=list)
    reference_variance: float | None = None
    prunings: int = 0

    def __post_init__(self) -> None:
        self.layers = PlainLayers(self.model)
        scorers = [self.policy.scorer, getattr(self.policy.retention, "scorer", None)]
        self.near = Margin(scale=float(any(getattr(scorer, "products", False) for scorer in scorers)))

    @property
    def margin(self) -> float:
        return self.near.smallest

    def prefill(self, prompt: list[int]) -> Tensor:
        """The logits of the first new token, (vocabulary,)."""
        self.prompt_tokens = len(prompt)
        return self._step(prompt)

    def decode(self, token: int) -> Tensor:
        """The logits that follow ``token``, (vocabulary,)."""
        self.decoded += 1
        return self._step([token])

    @torch.no_grad()
    def _step(self, new_ids: list[int]) -> Tensor:
        first = self.tokens == 0
        new = list(range(self.tokens, self.tokens + len(new_ids)))
        for token, token_id in zip(new, new_ids, strict=True):
            self.layers.embed(token, token_id)
        self.tokens += len(new)
        self.new = len(new)
        before = self.selected[-1] if self.selected else []
        self.selected.append([])
        self.computed.append([])
        in_turn = not self.decoded or (self.decoded - 1) % self.policy.revival.every == 0
        selects = first or (self.policy.revives and in_turn)
        self.scored: dict[int, Scores] = {}
        self.prunings = 0

        using = self._after(-1, list(range(self.tokens)), new) if selects else []
        for layer in range(self.layers.num_layers):
            if not self.policy.revives and not first:  # what is there, and the new
                using = sorted({*self.layers.keys[layer], *new})
            elif not selects:  # the last selection, and what came since
                using = [*before[layer], *new]
            missing = [token for token in using if token not in self.layers.keys[layer]]
            self.selected[-1].append(using)
            self.computed[-1].append(missing)
            self.layers.compute(layer, missing, using)
            if selects:  # before anything is evicted: the layer's attention had seen all
                self._score(layer, missing, using)
            if first:
                self._evict(layer, using)
            if selects:
                using = self._after(layer, using, new)
        return self.layers.logits(self.computed[-1][-1][-1])

    # ---- scores
    def _heads(self, scorer: AttentionScorer, layer: int, computed: list[int], using: list[int]) -> list[Scores]:
        """Each query head's scores, by the newest tokens that the layer computed."""
        window = scorer.window + int(scorer.window_share * self.prompt_tokens)
        queries = computed[-min(window, self.new) :]
        heads = []
        for head in range(self.layers.query_heads):
            rows = []
            for query in queries:
                seen = [token for token in using if token <= query]
                values = self.layers.scores(layer, query, head, seen, scorer.products)
                rows.append(dict(zip(seen, values, strict=True)))
            heads.append(score_of_head(scorer, rows, queries, using))
        return heads

    def _score(self, layer: int, computed: list[int], using: list[int]) -> None:
        if not self._is_scored(layer):
            return
        if isinstance(self.policy.scorer, Given):
            self.scored[layer] = self._given(using)
            return
        if isinstance(self.policy.scorer, OutputNorm):
            self.scored[layer] = {token: self.layers.change(layer, token, using) for token in using}
            return
        assert isinstance(self.policy.scorer, AttentionScorer)
        self.scored[layer] = score_of_layer(self.policy.scorer, self._heads(self.policy.scorer, layer, computed, using))

    def _given(self, using: list[int]) -> Scores:
        assert isinstance(self.policy.scorer, Given)
        given = self.policy.scorer.scores[0].tolist()
        return {token: given[token] if token < len(given) else 1e100 for token in using}

    def _is_scored(self, layer: int) -> bool:
        """Its scores count. A window hides what older tokens are worth, so such layers are passed over."""
        whole = [layer for layer in range(self.layers.num_layers) if self.layers.window(layer) is None]
        found = set(self.policy.layers)
        for at in self.policy.layers:
            before = [layer for layer in whole or range(self.layers.num_layers) if layer < at]
            found.update(before[len(before) - min(len(before), self.policy.look_back - 1) :])
        return layer in found

    # ---- prunings
    def _after(self, layer: int, using: list[int], new: list[int]) -> list[int]:
        """The tokens that the next layer uses."""
        if not self._prunes(layer):
            return using
        score = self._given(using) if layer == -1 else self._over_layers(layer, using)
        budget = self.policy.budget[self.prunings]
        self.prunings += 1
        chosen = choose(self.policy, budget, score, using, self.tokens, self.prompt_tokens, self.near)
        has = self.layers.keys[layer + 1]
        if not has:  # the first prompt
            return chosen
        absent = [token for token in chosen if token not in has and token not in new]
        most = len(absent) if self.policy.revival.most is None else self.policy.revival.most
        revived = best(score, absent, most, self.near)
        if self.policy.revival.attend == "computed":
            return sorted({*has, *revived, *(token for token in new if token in chosen)})
        return [token for token in chosen if token not in absent or token in revived]

    def _over_layers(self, layer: int, using: list[int]) -> Scores:
        rows = [self.scored[at] for at in sorted(self.scored) if at <= layer][-self.policy.look_back :]
        return over_layers(self.policy, rows, using)

    def _prunes(self, layer: int) -> bool:
        settles, layers = self.policy.settles, self.policy.layers
        if settles is None or layer not in layers:
            return layer in layers
        assert isinstance(settles, WhereRanksSettle)
        first = layers[0] + settles.observed - 1
        if self.prunings or layer < first:
            return False
        observed = [self.scored[at] for at in range(layer - settles.observed + 1, layer + 1)]
        variance = rank_variance(settles, observed, self.near)
        if layer == first:
            self.reference_variance = variance
        assert self.reference_variance is not None
        threshold = settles.below * self.reference_variance
        if variance or threshold:
            self.near.between(variance, threshold)
        return variance < threshold

    # ---- retention
    def _evict(self, layer: int, using: list[int]) -> None:
        """After the attention of the prefill: what each key-value head no longer sees."""
        retention = self.policy.retention
        if retention is None or self.layers.window(layer) is not None:
            return
        assert isinstance(retention, PerHead)
        if layer < retention.first_layers:
            return
        count = max(retention.last, count_of(retention.budget, len(using), self.prompt_tokens, retention.last))
        if count >= len(using):
            return
        newest = using[len(using) - retention.last :]
        older = using[: len(using) - retention.last]
        of_heads, group = self._heads(retention.scorer, layer, using, using), self.layers.group
        for head in range(self.layers.kv_heads):
            own = of_heads[head * group : (head + 1) * group]
            score = {token: sum(scores[token] for scores in own) for token in using}
            kept = {*newest, *best(score, older, count - len(newest), self.near)}
            self.layers.evicted[layer][head] = set(using) - kept
