"""How much work a forward pass launches and how often it waits for the device: today's counts are the ceilings.

On a GPU a decoding step at batch 1 lasts as long as the host takes to launch it, so these counts are its speed. Whoever
makes the engine launch less lowers the ceilings here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tiny_models import left_padded, random_prompt, tiny_model
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.methods.taper import Taper
from lazybench.methods.uniprefill import UniPrefill
from lazybench.pruning.budgets import Revival
from lazybench.pruning.engine import Pruned

# a new tensor over the same memory, or memory alone: nothing for the device to do
_FREE = {
    *("view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "alias", "detach"),
    *("select", "slice", "split", "split_with_sizes", "chunk", "unbind", "narrow", "as_strided", "lift_fresh"),
    *("promote_types",),  # arithmetic on types alone
    *("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"),
}
_READS_ALL = {Tensor.tolist, Tensor.cpu}  # numpy() alone fails on a GPU's tensor: cpu() stands before it, and counts
# item(), bool(), int() and float() end in the first of these; the others' results have a shape that depends on values
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_consecutive"}


@dataclass
class Operations:
    """Of one forward pass.

    Attributes:
        launched: operations that launch work on the device; views do not.
        waits: times that the host waits for the device, to read values or to learn a shape that depends on them.
        copies: small tensors made of Python values or arrays, each a copy from the host to the device.
    """

    launched: int = 0
    waits: int = 0
    copies: int = 0


class _Dispatched(TorchDispatchMode):
    """Counts below autograd, where each kernel is called once."""

    def __init__(self, counts: Operations) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(_is_mask(index) for index in args[1])
        self.counts.waits += by_mask or name in _WAITS
        self.counts.launched += name not in _FREE and name != "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    """Counts what Python asked for: a CPU tensor gives its values without any kernel, a GPU's does not."""

    def __init__(self, counts: Operations) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.counts.waits += func in _READS_ALL
        self.counts.copies += func in (torch.tensor, torch.as_tensor) and output.numel() > 0
        return output


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


@contextmanager
def count_operations() -> Iterator[Operations]:
    """Counts what runs inside, on CPU tensors, as a GPU would have it to do."""
    counts = Operations()
    frombuffer = torch.frombuffer

    def counted(array: Any, **options: Any) -> Tensor:
        counts.copies += 1
        return frombuffer(array, **options)

    with _Dispatched(counts), _Called(counts), patch("torch.frombuffer", counted):
        yield counts


PROMPT = random_prompt(64, seed=0)
PROMPTS: dict[str, tuple[Tensor, Tensor | None]] = {
    "one": (PROMPT, None),
    "of one length": (torch.cat([random_prompt(64, seed) for seed in range(3)]), None),
    "padded": left_padded([random_prompt(tokens, seed=tokens) for tokens in (64, 57, 40)]),
}
PAPER = PruningSchedule.paper(32)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama", num_hidden_layers=32, hidden_size=64, intermediate_size=128, head_dim=16)


def passes(
    model: PreTrainedModel,
    run: AbstractContextManager[object],
    prompt: Tensor,
    mask: Tensor | None = None,
    new_tokens: int = 8,
) -> tuple[Operations, list[Operations]]:
    """The prefill's operations and those of each decoding step inside ``run``, whose own are among them.

    What runs between the passes is left out. The hooks of ``run`` run after the one that starts the count.
    """
    counts: list[Operations] = []
    running = ExitStack()
    hooks = (
        model.register_forward_pre_hook(lambda *_: counts.append(running.enter_context(count_operations()))),
        model.register_forward_hook(lambda *_: running.close(), always_call=True),
    )
    mask = torch.ones_like(prompt) if mask is None else mask
    try:
        with run:
            model.generate(prompt, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
    finally:
        for hook in hooks:
            hook.remove()
    prefill, *steps = counts
    assert len(steps) == new_tokens - 1
    return prefill, steps


@pytest.fixture(scope="module")
def plain(model) -> dict[str, tuple[Operations, list[Operations]]]:
    """The plain model's; its decoding step launches as much as its prefill."""
    found = {name: passes(model, nullcontext(), *prompts) for name, prompts in PROMPTS.items()}
    prefill, steps = found["one"]
    assert all(step == prefill for step in steps)
    assert prefill.waits == prefill.copies == 0
    assert prefill.launched > 1_000
    return found


def revival(**options: Any) -> PruningSchedule:
    """The paper's schedule, reviving otherwise."""
    return replace(PAPER, revival=Revival(**options))


@pytest.mark.parametrize(
    ("prompts", "schedule", "prefill_ratio", "step_ratio", "asked", "waits", "copies"),
    [
        ("one", PruningSchedule.paper(32, (1.0, 1.0, 1.0)), 1.001, 1.001, 0, 0, 0),
        ("one", replace(PAPER, revive=False), 1.04, 1.004, 0, 0, 0),
        ("one", PAPER, 1.04, 1.05, 0, 3, 3),
        ("one", PruningSchedule.preset("authors_linear").build(32), 1.23, 1.3, 0, 20, 20),
        ("one", revival(most=8), 1.04, 1.05, 0, 3, 3),
        ("one", revival(most=8, attend="computed"), 1.04, 1.043, 0, 3, 3),  # what is there: few rows change sides
        ("of one length", PAPER, 1.065, 1.07, 0, 3, 3),
        ("padded", PAPER, 0.98, 1.02, 3, 3, 6),  # its masks cost the plain model two waits, and one a step
    ],
    ids=["nothing pruned", "never revived", "paper", "linear", "capped", "capped, computed", "of one length", "padded"],
)
def test_a_generation(model, plain, prompts, schedule, prefill_ratio, step_ratio, asked, waits, copies):
    """A step waits once at each pruning, for the choice, and sends back where its tokens go; a prefill never waits.

    Unless prompts of unequal lengths are padded; ``asked`` are the prefill's waits, and its copies.
    """
    plain_prefill, plain_steps = plain[prompts]
    prefill, steps = passes(model, LazyLLM(model, schedule), *PROMPTS[prompts])
    assert prefill.launched <= prefill_ratio * plain_prefill.launched
    assert max(prefill.waits, prefill.copies) <= asked
    for step, plain_step in zip(steps, plain_steps, strict=True):
        assert step.launched <= step_ratio * plain_step.launched
        assert step.waits <= waits
        assert step.copies <= copies


@pytest.mark.parametrize("method", [Taper(first=4, last=4, chunk=4), UniPrefill(block=4, first=4, last=4)], ids=str)
def test_a_pruning_by_chunks_waits_once(model, method):
    """How many tokens stay depends on the scores, so the host waits for that number, and for nothing else."""
    policy = method.policy(model.config)
    prefill, _ = passes(model, Pruned(model, policy), PROMPT, new_tokens=1)
    assert prefill.waits == len(policy.layers)


@pytest.mark.parametrize(
    ("options", "step_ratio", "between_ratio", "copies_between"),
    [({}, 1.05, 1.03, 3), ({"most": 8, "attend": "computed"}, 1.043, 1.006, 0)],
    ids=["selected", "computed"],
)
def test_steps_between_bursts_do_not_wait(model, plain, options, step_ratio, between_ratio, copies_between):
    """Where what is computed is attended to, they ask nothing at all of the host."""
    _, steps = passes(model, LazyLLM(model, revival(every=4, **options)), PROMPT)
    assert [step.waits for step in steps] == [3, 0, 0, 0, 3, 0, 0]
    for step in steps:
        assert step.launched <= (step_ratio if step.waits else between_ratio) * plain["one"][0].launched
        assert step.copies == (3 if step.waits else copies_between)


def test_the_counter_sees_what_a_gpu_would_wait_for():
    tensor = torch.arange(6)
    for work, expected in (
        (lambda: tensor.view(2, 3)[0].unsqueeze(0).expand(4, -1).detach(), Operations()),
        (lambda: tensor[tensor > 2].tolist(), Operations(launched=2, waits=2)),
        (lambda: bool(torch.tensor([1, 2]).all()), Operations(launched=1, waits=1, copies=1)),
    ):
        with count_operations() as counts:
            work()
        assert counts == expected
