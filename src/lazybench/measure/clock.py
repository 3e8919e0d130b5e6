"""The clock: when each generated token was on the host.

TTFT runs from handing over the prompt's token ids to having the first new token on the host. Whatever a
method does before its generation (a probe, a compressor) lies inside. Tokenisation, loading and scoring
lie outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from lazybench.errors import UserError


class Clock(BaseStreamer):
    """A streamer for ``model.generate`` that notes the time of every token, in seconds since ``start``.

    ``generate`` copies each token to the host before it calls ``put``, and a copy waits for all that the
    token depends on: no further synchronisation is needed to read the time. Where transformers hands tokens over
    a step late (5.23 does on Apple's ``mps``), TTFT would hold a decoding step: ``before_forward``, a forward
    pre-hook of the model, refuses that.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._prompt_passed = False
        self._forwards = 0  # since the prompt was passed
        self.token_times_s: list[float] = []

    def start(self) -> None:
        """Begin at zero, with no earlier work left on the device."""
        self._synchronize()
        self._prompt_passed = False
        self._forwards = 0
        self.token_times_s = []
        self._started = time.perf_counter()

    def put(self, value: Tensor) -> None:
        """Called by ``generate``: with the prompt first, then with each token."""
        now = time.perf_counter() - self._started
        if self._prompt_passed:
            self.token_times_s.append(now)
        self._prompt_passed = True

    def before_forward(self, *_: object) -> None:
        """A forward pass of the model begins.

        Raises:
            UserError: the token of the one before is not on the host yet.
        """
        if not self._prompt_passed:
            return
        if self._forwards > len(self.token_times_s):
            raise UserError(
                "transformers hands tokens over after the next forward pass has begun, so that a TTFT would hold a "
                "decoding step; measure with model.device=cpu or cuda and the transformers of requirements.txt"
            )
        self._forwards += 1

    def end(self) -> None:
        """Called by ``generate`` after the last token; the last ``put`` was the last token's time."""

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token on the host."""
        return self.token_times_s[0]

    @property
    def generation_s(self) -> float:
        """Seconds to the last token on the host."""
        return self.token_times_s[-1]

    @property
    def decode_step_s(self) -> float | None:
        """Mean seconds of a decoding step; None when the prefill's token was the only one."""
        steps = len(self.token_times_s) - 1
        return (self.generation_s - self.ttft_s) / steps if steps else None


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What waits for all work queued on the machine's devices of this kind; nothing to wait for on a CPU."""
    if device.type == "cuda":
        return _synchronize_gpus
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def _synchronize_gpus() -> None:
    for index in range(torch.cuda.device_count()):
        torch.cuda.synchronize(index)
