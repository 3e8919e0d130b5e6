"""The clock, the order of the methods, memory."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tiny_requests import tiny_request

from lazybench import LazyLLM, PruningSchedule
from lazybench.errors import SampleError, UserError
from lazybench.measure.memory import CLEAR_REFS, PeakMemory
from lazybench.measure.protocol import SHORT_TOKENS, WarmUp, attempt, measure, order_of_methods
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request, Response


@pytest.fixture(scope="module")
def request_() -> Request:
    return tiny_request(new_tokens=5)


class SlowStart(Baseline):
    """Works a while before it generates, as a compressor does."""

    def run(self, request: Request) -> Response:
        time.sleep(0.2)
        assert not gc.isenabled()
        return super().run(request)


@pytest.mark.parametrize("tokens", [1, 5])
def test_times_stand_in_order_and_count_every_token(tokens: int) -> None:
    measured = measure(Baseline(), tiny_request(new_tokens=tokens))
    assert len(measured.response.new_tokens) == tokens
    assert 0 < measured.ttft_s <= measured.generation_s
    steps = None if tokens == 1 else pytest.approx((measured.generation_s - measured.ttft_s) / (tokens - 1))
    assert measured.decode_step_s == steps  # a single token has no decoding step


def test_work_before_the_generation_is_inside_ttft(request_: Request) -> None:
    measured = measure(SlowStart(), request_)
    assert measured.ttft_s > 0.2
    assert measured.decode_step_s is not None
    assert measured.decode_step_s < 0.2


@pytest.mark.parametrize("schedule", [None, PruningSchedule((2, 4), (0.6, 0.6))], ids=["plain", "pruned"])
def test_each_token_is_on_the_host_before_the_next_forward_pass(schedule: PruningSchedule | None) -> None:
    """On a GPU too, where there is one."""
    events: list[str] = []

    class Watched(Baseline):
        def run(self, request: Request) -> Response:
            clock = request.generate_kwargs["streamer"]
            put = clock.put
            clock.put = lambda value: (put(value), events.append(f"token on {value.device}"))
            hook = request.model.register_forward_pre_hook(lambda *_: events.append("forward"))
            try:
                with LazyLLM(request.model, schedule) if schedule else nullcontext():
                    return super().run(request)
            finally:
                hook.remove()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    request = tiny_request(new_tokens=5)
    measure(Watched(), replace(request, model=request.model.to(device), prompt_ids=request.prompt_ids.to(device)))
    assert events == ["token on cpu", *["forward", "token on cpu"] * 5]  # the first token is the prompt


def test_tokens_handed_over_late_are_refused(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation import utils

    class Late(utils.StopCheck):
        """Transformers' deferred check on ``mps``: a token is handed over in the step after its own."""

        waiting: torch.Tensor | None = None

        def __call__(self, unfinished: torch.Tensor, tokens: torch.Tensor, length: int) -> bool:
            if self.waiting is not None:
                self.streamer.put(self.waiting.cpu())
            self.waiting = tokens
            return bool(unfinished.max() == 0)

    monkeypatch.setattr(utils, "StopCheck", Late)
    with pytest.raises(UserError, match="hands tokens over after the next forward pass"):
        measure(Baseline(), request_)
    assert not request_.model._forward_pre_hooks
    assert gc.isenabled()  # after a failure too


@dataclass(frozen=True)
class Noting(Baseline):
    """Notes what it is asked."""

    asked: Any

    def run(self, request: Request) -> Response:
        self.asked.append((request.prompt_ids.shape[1], request.generate_kwargs["max_new_tokens"]))
        return super().run(request)


def test_warm_up_on_a_cpu_is_short_and_once() -> None:
    request = tiny_request(prompt_tokens=400, max_position_embeddings=1024)
    asked: list[tuple[int, int]] = []
    warm_up = WarmUp([Noting(asked)], runs=3)
    for _ in range(2):
        warm_up(request)
    assert asked == [(SHORT_TOKENS, 2)] * 3
    WarmUp([Noting(asked)], runs=0)(request)
    assert len(asked) == 3


def test_a_failure_is_one_line_and_frees_what_it_held() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        block = torch.ones(8)
        held.append(weakref.ref(block))
        raise RuntimeError("out of\nmemory")

    assert attempt(fail) == "RuntimeError: out of memory"
    assert held[0]() is None

    def refuse() -> None:
        raise UserError("bad input")

    with pytest.raises(UserError):
        attempt(refuse)
    assert attempt(refuse, proven=True) == "bad input"  # the set-up has shown that it works

    def refuse_one() -> None:
        raise SampleError("bad sample")

    assert attempt(refuse_one) == "bad sample"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_order_is_fair(count: int) -> None:
    methods = list(range(count))
    orders = [order_of_methods(index, methods) for index in range(2 * count)]
    assert all(sorted(order) == methods for order in orders)
    for place in range(count):
        assert set(Counter(order[place] for order in orders).values()) == {2}
    followed = Counter(pair for order in orders for pair in itertools.pairwise(order))
    for (first, second), times in followed.items():
        assert followed[second, first] == times  # nobody always runs behind the same other one


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="needs Linux")
def test_peak_memory_is_of_this_run_alone() -> None:
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    quiet = memory.bytes()
    if quiet is None:
        pytest.skip("the peak can't be reset here")
    size = 200 * 2**20
    block = torch.ones(size, dtype=torch.uint8)
    del block
    loud = memory.bytes()
    assert loud is not None
    assert memory.added_bytes() == pytest.approx(size, rel=0.2)
    assert size * 0.9 < loud - quiet < size * 1.2
    memory.start()
    again = memory.bytes()
    assert again is not None
    assert again < loud - size * 0.8
