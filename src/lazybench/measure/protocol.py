"""How a method is timed: quietly, and in fair order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from lazybench.errors import SampleError, UserError
from lazybench.measure.clock import Clock, synchronizer
from lazybench.measure.memory import PeakMemory
from lazybench.methods.base import Method
from lazybench.methods.request import Request, Response

T = TypeVar("T")


SHORT_TOKENS = 256


@dataclass(frozen=True)
class Measurement:
    """One timed run of one method on one prompt. Times in seconds."""

    ttft_s: float  # from handing over the prompt's ids to the first token on the host
    generation_s: float  # to the last token on the host
    decode_step_s: float | None  # mean over the decoding steps; None without any
    response: Response
    peak_memory_bytes: int | None  # weights included; None where it cannot be had (see measure/memory.py)
    added_memory_bytes: int | None  # the peak over what was held before


def measure(method: Method, request: Request) -> Measurement:
    """Run a method once under the clock. Warm-up is the caller's: a first call is never a measurement.

    Raises:
        UserError: transformers hands tokens over too late to time them.
    """
    device = request.prompt_ids.device
    synchronize = synchronizer(device)
    clock, memory = Clock(synchronize), PeakMemory(device)
    timed = replace(request, generate_kwargs={**request.generate_kwargs, "streamer": clock}, synchronize=synchronize)
    hook = request.model.register_forward_pre_hook(clock.before_forward)
    try:
        with _no_garbage_collection():
            memory.start()
            clock.start()
            response = method.run(timed)
            peak, added = memory.bytes(), memory.added_bytes()
        if request.engine is not None:  # the process holds both models
            peak = added = None
    finally:
        hook.remove()
    return Measurement(clock.ttft_s, clock.generation_s, clock.decode_step_s, response, peak, added)


class WarmUp:
    """Untimed runs that make every method warm for what is timed next: kernels, caches, the device's allocator.

    On a GPU a prompt longer than any before makes the allocator ask the device for memory, in the middle of the
    method that comes first: every method runs once, with two tokens, before such a prompt is timed. Of n prompts in
    random order about log n are the longest so far. A CPU hands out memory anew for every run, whatever came
    before; only what is made once is to be warmed, and the prompt's first 256 tokens do that.
    """

    def __init__(self, methods: Sequence[Method], runs: int) -> None:
        """``runs`` on the first prompt; 0: none, ever."""
        self._methods = methods
        self._runs = runs
        self._longest = 0  # tokens that every method is warm for

    def __call__(self, request: Request) -> None:
        """To be called before every timed run."""
        on_cpu, tokens = request.prompt_ids.device.type == "cpu", request.prompt_ids.shape[1]
        if not self._runs or tokens <= self._longest or (on_cpu and self._longest):
            return
        short = replace(request, generate_kwargs={**request.generate_kwargs, "max_new_tokens": 2, "min_new_tokens": 2})
        if on_cpu:
            short = _first_tokens(short, SHORT_TOKENS)
        for _ in range(1 if self._longest else self._runs):
            for method in self._methods:
                attempt(
                    partial(method.run, short), proven=self._longest > 0
                )  # what fails will fail again when it is timed, and be recorded
        self._longest = tokens


def attempt(what: Callable[[], T], *, proven: bool = False) -> T | str:
    """What it returns; where it fails, one line on why, and what it held on the device is free.

    Args:
        proven: it has worked on another sample, so bad input is this sample's alone.

    Raises:
        UserError: bad input of every sample, as far as is known.
    """
    try:
        return what()
    except UserError as error:
        if not (proven or isinstance(error, SampleError)):
            raise
        failure = " ".join(str(error).split())
    except Exception as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    # the error is gone here, and with it the frames that held the tensors
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failure


def _first_tokens(request: Request, tokens: int) -> Request:
    template, context = (None if part is None else part[:tokens] for part in (request.template, request.context))
    if context is not None and not context.any():  # the document begins later
        context = torch.ones_like(context)
    return replace(request, prompt_ids=request.prompt_ids[:, :tokens], template=template, context=context)


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
