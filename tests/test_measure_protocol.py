"""The clock, the order of the methods, memory."""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from tiny_requests import tiny_request

from lazybench.contract import Request, Response
from lazybench.measure.memory import CLEAR_REFS, PeakMemory
from lazybench.measure.protocol import measure, order_of_methods
from lazybench.methods.baseline import Baseline


@pytest.fixture(scope="module")
def request_() -> Request:
    return tiny_request(new_tokens=5)


@dataclass(frozen=True)
class SlowStart(Baseline):
    """Works a while before it generates, as a compressor does."""

    seconds: float = 0.2

    def run(self, request: Request) -> Response:
        time.sleep(self.seconds)
        assert not gc.isenabled()
        return super().run(request)


def test_times_stand_in_order_and_count_every_token(request_: Request) -> None:
    measured = measure(Baseline(), request_)
    assert 0 < measured.ttft_s < measured.generation_s
    assert len(measured.response.new_tokens) == 5
    assert measured.decode_step_s == pytest.approx((measured.generation_s - measured.ttft_s) / 4)


def test_work_before_the_generation_is_inside_ttft(request_: Request) -> None:
    measured = measure(SlowStart(), request_)
    assert measured.ttft_s > 0.2
    assert measured.decode_step_s is not None
    assert measured.decode_step_s < 0.2


def test_a_single_token_has_no_decoding_step(request_: Request) -> None:
    kwargs = {**request_.generate_kwargs, "max_new_tokens": 1, "min_new_tokens": 1}
    single = Request(request_.model, request_.tokenizer, request_.prompt_ids, kwargs, seed=0)
    measured = measure(Baseline(), single)
    assert measured.decode_step_s is None
    assert measured.ttft_s == measured.generation_s


def test_garbage_collection_is_on_again_after_a_failure(request_: Request) -> None:
    class Fails(Baseline):
        def run(self, request: Request) -> Response:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure(Fails(), request_)
    assert gc.isenabled()


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
    assert size * 0.9 < loud - quiet < size * 1.2
    memory.start()
    again = memory.bytes()
    assert again is not None
    assert again < loud - size * 0.8
