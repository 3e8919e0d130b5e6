"""Which of a method's settings loses least at a FLOPs ratio, on few prompts: one question at a time, by halving.

A setting's work is computed before it runs, from one plain prefill of each prompt: how much of a prompt goes on follows
from the plain model's own scores. So every setting that runs has the FLOPs ratio that is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean, stdev
from typing import Any

import torch
from torch import Tensor

from lazybench.measure.fidelity import Reference, record_reference
from lazybench.methods.base import PolicyMethod
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.request import Request, TextConfig
from lazybench.methods.taper import PRESETS, Taper
from lazybench.models.flops import LayerCost
from lazybench.pruning import AttentionScorer
from lazybench.pruning.choosing import Watch, goes_on
from lazybench.pruning.engine import Pruned
from lazybench.pruning.places import readable_layers
from lazybench.pruning.policy import Policy
from lazybench.pruning.schedule import DEPTHS

LAST_PLACE = 0.8  # share of the depth of the last pruning: behind it little is left to save
NEAR = 0.03  # of a FLOPs ratio; nearer than that whole chunks may not come
Shape = dict[str, Any]  # a value for each question
# the questions in their order; the first answers are about what stands, the presets' and the paper's
QUESTIONS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "taper": {
        # depth of the first pruning, and how many there are from there to LAST_PLACE
        "where": ((0.13, 6), (0.06, 12), (0.06, 4), (0.33, 3), (0.33, 1)),
        "fall": (0.8, 0.0, 1.6),  # by what power a pruning grows milder with its depth; 0: all are alike
        "chunk": (32, 4),
        "ends": ((64, 0.15), (160, 0.25), (16, 0.08)),  # first, last_share
        "look_back": (4, 1),
    },
    "lazyllm": {
        "where": ((0.3, 3), (0.13, 3), (0.06, 6), (0.2, 4), (0.5, 2)),
        "fall": (0.0, 0.8, -0.8),
    },
}
EACH_SPEED = ("where", "fall")  # asked again at every speed; the others at the first alone


@dataclass(frozen=True)
class Traced:
    """One prompt and what the plain model made of it."""

    request: Request
    reference: Reference
    scores: Tensor  # (layers, prompt_tokens) what the newest queries attend to in each layer


def trace(request: Request) -> Traced:
    """One plain generation, watched."""
    scorer = AttentionScorer(window=32)
    scores: dict[int, Tensor] = {}

    def see(seen: Any) -> None:
        scores.setdefault(seen.layer, scorer(seen)[0].cpu())  # of the prefill, which comes first

    layers = request.model.config.get_text_config().num_hidden_layers
    with Pruned(request.model, Policy(), Watch(range(layers), see, scorer.window)):
        reference = record_reference(Baseline(), request)
    return Traced(request, reference, torch.stack([scores[layer] for layer in range(layers)]))


def flops_ratio(policy: Policy, config: TextConfig, cost: LayerCost, prompts: Sequence[Tensor]) -> float:
    """Plain FLOPs over this policy's, of all prompts together, without running it.

    Args:
        prompts: (layers, prompt_tokens) of each its scores in the plain model; what goes on from one pruning to the
            next is ranked by these.
    """
    ratios, scored = [], sorted(policy.scored(readable_layers(config)))
    for scores in prompts:
        tokens = scores.shape[1]
        entered, left = zip(*_tokens_of_layers(policy, scored, scores), strict=True)
        rows = policy.scorer.queries(tokens) * sum(entered[layer] for layer in scored)
        work = cost.flops(entered, left) + 2 * cost.attention_width * rows
        ratios.append(cost.flops([tokens] * cost.layers) / work)
    return harmonic_mean(ratios)


def _tokens_of_layers(policy: Policy, scored: Sequence[int], scores: Tensor) -> Iterator[tuple[int, int]]:
    """Of each layer the tokens in its attention and in its MLP."""
    tokens, places = scores.shape[1], policy.layers
    here = torch.arange(tokens)[None]
    for layer in range(len(scores)):
        entered = here.shape[1]
        if layer in places:
            newest = [one for one in scored if one <= layer][-policy.look_back :]
            seen = [scores[one][here] for one in newest]  # (1, entered) each
            rows = [(row / row.sum().clamp(min=1e-30), here) for row in seen]  # fewer keys share the attention
            chosen, _ = goes_on(policy, places.index(layer), rows, here, tokens, [entered])
            here = chosen.sort(dim=1).values
        yield entered, here.shape[1] if policy.before_mlp else entered


@dataclass(frozen=True)
class Space:
    """What may be asked of one method on one model.

    Args:
        method: as it is before a search.
        config: the model's text config.
        cost: of one of its layers.
        prompts: see ``flops_ratio``.
    """

    method: PolicyMethod
    config: TextConfig
    cost: LayerCost
    prompts: Sequence[Tensor]

    def at(self, shape: Shape, speed: float) -> PolicyMethod | None:
        """The method of this shape at this FLOPs ratio; None: it can't have it."""
        first, count = shape["where"]
        shares = [place / max(1, count - 1) for place in range(count)]
        depths = [round(first + (LAST_PLACE - first) * share, 3) for share in shares]
        weights = [(1 + 5 * share) ** -shape["fall"] for share in shares]
        others = {name: value for name, value in shape.items() if name not in ("where", "fall", "ends")}
        if "ends" in shape:
            others |= dict(zip(("first", "last_share"), shape["ends"], strict=True))
        method = self._solved(depths, weights, others, speed)
        return method if abs(self.ratio(method) / speed - 1) < NEAR else None

    def standing(self, speed: float) -> PolicyMethod:
        """What a user has without a calibration, brought near this ratio: the nearest preset, or the paper's layers."""
        if not isinstance(self.method, Taper):
            return self._solved(DEPTHS, [1.0] * len(DEPTHS), {}, speed)
        name = {1.5: "safe", 2.0: "balanced", 3.0: "fast"}[min((1.5, 2.0, 3.0), key=lambda one: abs(one - speed))]
        preset = dict(PRESETS[name])
        depths, keep = preset.pop("depths"), preset.pop("keep")
        return self._solved(depths, [-math.log(ratio) for ratio in keep], preset, speed)

    def _solved(self, depths: Sequence[float], weights: Sequence[float], others: Shape, speed: float) -> PolicyMethod:
        """The keep ratios ``exp(-weight * x)`` with the ``x`` that this FLOPs ratio takes, by bisection."""

        def method(strength: float) -> PolicyMethod:
            keep = tuple(max(0.005, round(math.exp(-strength * weight), 4)) for weight in weights)
            places: dict[str, Any] = {"depths": tuple(depths), "keep": keep}
            if isinstance(self.method, LazyLLMMethod):
                return replace(self.method, pruning=replace(self.method.pruning, layers=None, **places))
            assert isinstance(self.method, Taper)
            return replace(self.method, preset=None, **places, **others)

        low, high = 0.0, 8.0 / max(weights)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.ratio(method(middle)) < speed else (low, middle)
        return min(method(low), method(high), key=lambda one: abs(self.ratio(one) / speed - 1))

    def ratio(self, method: PolicyMethod) -> float:
        """Its FLOPs ratio on the prompts, computed."""
        return flops_ratio(method.policy(self.config), self.config, self.cost, self.prompts)


Judge = Callable[[PolicyMethod, int], float]  # log of the KL divergence of a method on the prompt of this number


def search(space: Space, start: Shape, questions: Sequence[str], speed: float, judge: Judge, prompts: int) -> Shape:
    """The best shape at a FLOPs ratio, question by question.

    All answers to a question run on the first prompts, the better half of them on more, and so on. The last replaces
    the answer that stood where it is ahead by more than the standard error of its lead over all prompts.
    """
    best = dict(start)
    for question in questions:
        stands = space.at(best, speed)
        rivals: dict[str, tuple[Shape, PolicyMethod]] = {}
        for answer in QUESTIONS[space.method.name][question]:
            shape = {**best, question: answer}
            method = space.at(shape, speed)
            if method is not None and method != stands:
                rivals.setdefault(json.dumps(method.params), (shape, method))
        left = list(rivals.values())
        if stands is None and left:  # what the search begins with can't be had here
            best, stands = left.pop(0)
        if stands is None or not left:
            continue
        for count in rounds(prompts):
            left = _better_half(left, count, judge)
        leads = [[judge(stands, prompt) - judge(method, prompt) for prompt in range(prompts)] for _, method in left]
        lead, (shape, _) = max(zip(leads, left, strict=True), key=lambda pair: fmean(pair[0]))
        if fmean(lead) > stdev(lead) / math.sqrt(prompts):
            best = shape
    return best


def rounds(prompts: int) -> list[int]:
    """Numbers of prompts after which half of the answers goes: 2, 4, 8, less than all."""
    return [2**power for power in range(1, 10) if 2**power < prompts]


def _better_half(rivals: list[tuple[Shape, PolicyMethod]], prompts: int, judge: Judge) -> list[Any]:
    ranked = sorted(rivals, key=lambda rival: fmean(judge(rival[1], prompt) for prompt in range(prompts)))
    return ranked[: math.ceil(len(ranked) / 2)]
