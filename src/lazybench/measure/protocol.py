"""How a method is timed: quietly, and in fair order."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from lazybench.contract import Method, Request, Response
from lazybench.measure.clock import Clock, synchronizer
from lazybench.measure.memory import PeakMemory

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One timed run of one method on one prompt. Times in seconds."""

    ttft_s: float  # from handing over the prompt's ids to the first token on the host
    generation_s: float  # to the last token on the host
    decode_step_s: float | None  # mean over the decoding steps; None without any
    response: Response
    peak_memory_bytes: int | None  # None where it cannot be had (see measure/memory.py)


def measure(method: Method, request: Request) -> Measurement:
    """Run a method once under the clock. Warm-up runs are the caller's: a first call is never a measurement."""
    device = request.prompt_ids.device
    synchronize = synchronizer(device)
    clock, memory = Clock(synchronize), PeakMemory(device)
    timed = replace(request, generate_kwargs={**request.generate_kwargs, "streamer": clock}, synchronize=synchronize)
    with _no_garbage_collection():
        memory.start()
        clock.start()
        response = method.run(timed)
        peak = memory.bytes()
    return Measurement(clock.ttft_s, clock.generation_s, clock.decode_step_s, response, peak)


def order_of_methods(sample_index: int, methods: Sequence[T]) -> list[T]:
    """The methods in this sample's order: each starts equally often, and the direction alternates.

    Rotation alone would let the same method always run behind the same other one.

    >>> [order_of_methods(index, "abc") for index in (0, 1, 3)]
    [['a', 'b', 'c'], ['b', 'c', 'a'], ['a', 'c', 'b']]
    """
    rounds, start = divmod(sample_index, len(methods))
    step = -1 if rounds % 2 else 1
    return [methods[(start + step * place) % len(methods)] for place in range(len(methods))]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect what the last run left, then keep the collector from running inside the clock."""
    was_enabled = gc.isenabled()
    # with the collector off, a run's garbage is young: a full collection would add 0.2 s to every run for nothing
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
