"""Methods are a registry, and their parameters data: what is recorded of one makes the same one again."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
import torch
from conftest import run_environment
from tiny_requests import tiny_request

from lazybench.errors import UserError
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods import METHODS, build, family, label, register
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.taper import DEPTHS
from lazybench.pruning.schedule import PruningSchedule

NAMES = list(METHODS)
NUMBERS = (0, 1, 3, 64, 0.3, 0.7)
WORDS = ("continue", "context", "mass", "safe")


@pytest.mark.parametrize("name", NAMES)
def test_every_method_runs_under_the_clock_and_is_judged(name: str) -> None:
    method = build(name)
    request = tiny_request(num_hidden_layers=12)  # asl compares eight of them
    method.prepare(request.model)
    reference = record_reference(Baseline(), request)
    measured = measure(method, request)
    response = measured.response
    assert len(response.new_tokens) == 6
    assert 0 < measured.ttft_s < measured.generation_s
    shares = shares_of(response.work, request)
    assert 0 < shares.prompt_tokens_computed < 2
    assert shares.flops_ratio > 0
    assert len(shares.by_stage) >= 1
    judged = fidelity(method, request, reference)
    assert 0 <= judged.top1 <= 1
    assert judged.kl >= 0
    assert torch.equal(Baseline().run(request).new_tokens, reference.tokens)  # the model is left plain
    if name == "prompt_compression":
        assert 0 < response.overhead_s < measured.ttft_s  # reading is inside the TTFT


def changed(method: Method) -> Iterator[tuple[str, Any, Method]]:
    """Each parameter set otherwise, to every value that it takes of some."""
    for field in dataclasses.fields(cast(Any, method)):
        before = getattr(method, field.name)
        if before is None:
            continue
        others: Any = WORDS if isinstance(before, str) else (not before,) if isinstance(before, bool) else NUMBERS
        if isinstance(before, PruningSchedule):
            others = [dataclasses.replace(before, keep=(0.2, 0.3, 0.4)), dataclasses.replace(before, revive=False)]
        for value in [(0.3, 0.6)] if isinstance(before, tuple) else others:
            with suppress(UserError):
                yield field.name, value, dataclasses.replace(cast(Any, method), **{field.name: value})


@pytest.mark.parametrize("name", NAMES)
def test_params_are_json_and_make_the_same_method_again(name: str) -> None:
    for field, value, other in changed(build(name)):
        again = build(name, json.loads(json.dumps(other.params)))
        assert again == other, (field, value)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_tells_every_parameter(name: str) -> None:
    method = build(name)
    for field, value, other in changed(method):
        assert other == method or other.label != method.label, (field, value)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_refuses_what_it_is_not_in_one_line_that_names_it(name: str) -> None:
    for field in dataclasses.fields(cast(Any, METHODS[name])):
        for value in ({"no": "part"}, [None], "no such word", -1, float("nan")):
            said = ""
            try:
                method = build(name, {field.name: value})
                assert build(name, method.params) == method  # a text that names something, say
            except UserError as error:
                said = str(error)
            assert not said or field.name in said or field.name == "pruning"


def test_schedules_have_labels_of_their_own() -> None:
    schedules: list[dict[str, Any]] = [
        {},
        {"layers": [], "keep": []},
        {"layers": [1], "keep": [0.5]},
        {"layers": [1], "keep": [0.5], "ratio_of": "context"},
        {"depths": [0.1], "keep": [0.5]},
        {"layers": [1, 2, 3, 4, 9], "keep": [0.5] * 5},
        {"layers": [1, 2, 3, 5, 9], "keep": [0.5] * 5},
        {"layers": [1], "keep": [0.5], "revive": False},
        {"layers": [1], "keep": [0.5], "revival": {"most": 8}},
        {"layers": [1], "keep": [0.5], "revival": {"most": 8, "attend": "computed"}},
    ]
    labels = [label("lazyllm", {"pruning": schedule}) for schedule in schedules]
    assert len(set(labels)) == len(labels)
    assert labels[:2] == ["depths=0.3,0.6,0.9 keep=0.7,0.7,0.7", "nothing pruned"]


CURVES: dict[str, list[dict[str, Any]]] = {
    "asl": [{"keep": 0.4, "below": 1.0, "depth": 0.5}, {"keep": 0.1, "below": 1.0, "depth": 0.25}],
    "dash": [{"keep": 0.5}, {"keep": 0.1, "depth": 0.25}],
    "fastkv": [{"propagate": keep, "depth": depth, "retain": 1} for keep, depth in ((0.4, 0.5), (0.25, 0.25))],
    "lazyllm": [{"pruning": {"keep": [keep] * 3}} for keep in (0.75, 0.1)],
    "lazyllm_evicted": [{"retain": keep, "pruning": {"keep": [keep] * 3}} for keep in (0.5, 0.1)],
    "random_drop": [{"keep": 0.7, "repeats": 1}, {"keep": 0.3, "repeats": 1}],
    "taper": [{"preset": "safe"}, {"preset": "fast"}, {"depths": DEPTHS, "keep": [0.9] * 6, "last_share": 0.08}],
    "uniprefill": [{"mass": 0.995}, {"mass": 0.3}],
}


def test_a_curve_is_of_settings_that_differ_in_how_much_they_keep() -> None:
    for name, settings in CURVES.items():
        assert len({family(name, build(name, params).params) for params in settings}) == 1, name
    assert family("taper", {"preset": "fast"}) == family("taper", {}) != family("taper", {"window": 8})
    assert family("lazyllm", {}) != family("lazyllm", {"pruning": {"depths": [0.15, 0.45, 0.75]}})


def test_settings_are_read_before_torch_is() -> None:
    """A bad value is refused at once, and help needs no model."""
    code = "import sys, lazybench.methods; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=run_environment(), check=False).returncode == 0


def test_a_name_stands_for_one_method() -> None:
    with pytest.raises(UserError, match="two methods are named taper"):
        register(type("Other", (Method,), {"name": "taper", "run": None}))


def test_every_method_says_what_it_is_and_where_it_is_from() -> None:
    for name, kind in METHODS.items():
        assert kind.title
        assert kind.__doc__
        assert name == "baseline" or re.search(r"\d{4}\.\d{5}|Source: none", kind.__doc__), name
