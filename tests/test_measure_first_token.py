"""The time to first token ends with the first token: it is on the host before the second forward pass starts.

transformers has a way to hand tokens over one step late (``DeferredStopCheck``, on "mps" today), which would add a
decoding step to every TTFT without an error.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from tiny_requests import tiny_request
from torch import Tensor
from transformers.generation import utils

from lazybench.errors import UserError
from lazybench.measure.clock import Clock
from lazybench.measure.protocol import measure
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request, Response
from lazybench.pruning.lazyllm import LazyLLM
from lazybench.pruning.schedule import PruningSchedule

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IN_ORDER = ["prompt", "pass", "token", "pass", "token", "pass", "token"]


@dataclass(frozen=True)
class Pruned(Baseline):
    """The plain model's ``generate`` under a schedule; None: without."""

    schedule: PruningSchedule | None = None

    def run(self, request: Request) -> Response:
        with LazyLLM(request.model, self.schedule) if self.schedule else nullcontext():
            return super().run(request)


def order_of_events(schedule: PruningSchedule | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the clock and the model saw, in order: "prompt" and "token" for the clock, "pass" for the model."""
    events: list[str] = []
    put = Clock.put

    def noted(clock: Clock, value: Tensor) -> None:
        events.append("token" if clock._prompt_passed else "prompt")
        assert value.device.type == "cpu"
        put(clock, value)

    monkeypatch.setattr(Clock, "put", noted)
    request = tiny_request(new_tokens=3)
    request = Request(
        request.model.to(DEVICE), request.tokenizer, request.prompt_ids.to(DEVICE), request.generate_kwargs, seed=0
    )
    request.model.register_forward_pre_hook(lambda *_: events.append("pass"))
    measure(Pruned(schedule), request)
    return events


@pytest.mark.parametrize("schedule", [None, PruningSchedule((2, 4), (0.6, 0.6))], ids=["plain", "pruned"])
def test_each_token_is_on_the_host_before_the_next_pass_starts(schedule, monkeypatch):
    assert order_of_events(schedule, monkeypatch) == IN_ORDER


def test_tokens_handed_over_a_step_late_are_seen(monkeypatch):
    class Late(utils.StopCheck):
        held: Tensor | None = None

        def __call__(self, unfinished_sequences: Tensor, tokens: Tensor, length: int) -> bool:
            if self.held is not None:
                self.streamer.put(self.held)
            self.held = tokens.cpu()
            return bool(unfinished_sequences.max() == 0)

        def finish(self) -> int:
            self.streamer.put(self.held)
            return 0

    monkeypatch.setattr(utils, "StopCheck", Late)
    with pytest.raises(UserError, match="hands tokens over after the next forward pass"):
        order_of_events(None, monkeypatch)
