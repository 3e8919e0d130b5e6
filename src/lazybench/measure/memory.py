"""Peak memory of one run: the device's allocator where there is one, else the process's resident memory."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK_RESIDENT = "5"  # proc(5), clear_refs


class PeakMemory:
    """Bytes at the peak since ``start``: all (``bytes``, weights included) and what was added (``added_bytes``).

    On a GPU: what torch's allocator held, summed over devices. On a CPU: the peak of the process's resident
    set (VmHWM, reset by Linux on request); ``None`` where the system offers no reset. Memory that the C
    library holds back from earlier runs is returned first, so that a run's peak is its own. No thread
    samples anything, so that the clock is left alone.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._resettable = False
        self._at_start: int | None = None

    def start(self) -> None:
        self._reset()
        self._at_start = self.bytes()  # right after the reset, the peak is what is held

    def _reset(self) -> None:
        if self._on_gpu:
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
            return
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        try:
            CLEAR_REFS.write_text(RESET_PEAK_RESIDENT)
            self._resettable = True
        except OSError:  # not Linux, or not allowed here
            self._resettable = False

    def bytes(self) -> int | None:
        if self._on_gpu:
            return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
        if not self._resettable:
            return None
        match = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return int(match[1]) * 1024 if match else None

    def added_bytes(self) -> int | None:
        """The peak over what was held at ``start``: caches and activations, not the weights."""
        peak = self.bytes()
        return None if peak is None or self._at_start is None else peak - self._at_start
