"""How much a prefill and a decoding step launch on the device, and how often the host waits for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from lazybench.methods.base import Method
from lazybench.methods.request import Request

_PASS = "lazybench forward pass"
_NEW_TOKENS = 4  # the last step is counted: the first ones also make room
_COPIES = ("cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch")
# on a CPU operations stand for kernels; these make views or room, or call others
_NO_WORK_NAMES = (
    "as_strided view _unsafe_view _reshape_alias detach detach_ alias lift_fresh reshape empty empty_strided "
    "empty_like new_empty resize_ expand slice narrow select split transpose t permute unsqueeze squeeze "
    "flatten unflatten chunk contiguous to resolve_conj resolve_neg result_type item _local_scalar_dense"
)
_NO_WORK = {f"aten::{name}" for name in _NO_WORK_NAMES.split()}


def launches_and_waits(method: Method, request: Request) -> dict[str, int]:
    """``prefill_launches``, ``prefill_waits``, ``step_launches`` and ``step_waits``, from torch's profiler.

    Counted inside the model's forward passes: all those before the first token together (a probe's too, another
    model's not), and the last step's. On a GPU calls of the driver; on a CPU operations that compute, and no waits.
    """
    limits = {**request.generate_kwargs, "max_new_tokens": _NEW_TOKENS, "min_new_tokens": _NEW_TOKENS}
    running: list[Any] = []

    def begin(*_: Any) -> None:
        running.append(record_function(_PASS))
        running[-1].__enter__()

    def end(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    on_gpu = request.prompt_ids.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        hooks = (
            request.model.register_forward_pre_hook(begin),
            request.model.register_forward_hook(end, always_call=True),
        )
        try:
            method.run(replace(request, generate_kwargs=limits))
        finally:
            for hook in hooks:
                hook.remove()
        if on_gpu:
            torch.cuda.synchronize()
    events = [event for event in profiled.events() if "CUDA" not in str(event.device_type)]  # what the host did
    passes = sorted((event.time_range for event in events if event.name == _PASS), key=lambda span: span.start)
    counts = {}
    for part, spans in (("prefill", passes[: 1 - _NEW_TOKENS]), ("step", passes[-1:])):
        inside = [event for event in events if any(s.start <= event.time_range.start <= s.end for s in spans)]
        counts[f"{part}_launches"] = sum(_launches(event, on_gpu) for event in inside)
        if on_gpu:  # a CPU's values are at hand without a call that could be seen
            counts[f"{part}_waits"] = sum("Synchronize" in event.name for event in inside)
    return counts


def _launches(event: Any, on_gpu: bool) -> bool:
    if on_gpu:
        return "LaunchKernel" in event.name or event.name in _COPIES
    return _computes(event) and not any(_computes(child) for child in event.cpu_children)


def _computes(event: Any) -> bool:
    return event.name.startswith("aten::") and event.name not in _NO_WORK
