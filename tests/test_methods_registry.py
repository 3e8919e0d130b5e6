"""Methods are a registry, and their parameters data: what is recorded of one makes the same one again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
import torch
from conftest import python
from tiny_requests import tiny_request

from lazybench import LazyLLM, prune
from lazybench.errors import UserError
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods import METHODS, build, family, label, register
from lazybench.methods.base import Method, PolicyMethod
from lazybench.methods.baseline import Baseline
from lazybench.methods.taper import DEPTHS
from lazybench.pruning.budgets import Revival
from lazybench.pruning.schedule import PruningSchedule

NAMES = list(METHODS)
NUMBERS = (0, 1, 3, 64, 0.3, 0.7)
WORDS = ("continue", "context", "mass", "safe")
SCHEDULES: list[dict[str, Any]] = [
    {"keep": (0.2, 0.3, 0.4)},
    {"layers": (), "keep": ()},
    {"layers": (1,), "keep": (0.5,)},
    {"layers": (1,), "keep": (0.5,), "ratio_of": "context"},
    {"depths": (0.1,), "keep": (0.5,)},
    {"layers": (1, 2, 3, 4, 9), "keep": (0.5,) * 5},
    {"layers": (1, 2, 3, 5, 9), "keep": (0.5,) * 5},
    {"revive": False},
    {"revival": Revival(most=8)},
    {"revival": Revival(most=8, attend="computed")},
]


@pytest.mark.parametrize(
    ("name", "params"), [*((name, {}) for name in NAMES), ("static_pruning", {"variant": "continue"})]
)
def test_every_method_runs_under_the_clock_and_is_judged(name: str, params: dict[str, Any]) -> None:
    """And ``lazybench.prune`` generates what it does, or refuses a method that does more than prune."""
    method = build(name, params)
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
    if METHODS[name].run is PolicyMethod.run or params:
        with prune(request.model, name, **params):
            tokens = request.model.generate(request.prompt_ids, **request.generate_kwargs)
        assert torch.equal(tokens[0, request.prompt_ids.shape[1] :], response.new_tokens)
    else:
        with pytest.raises(UserError, match=r"does more than prune .* takes one of .*taper"):
            prune(request.model, name)


def test_pruning_without_a_word_is_the_papers_lazyllm() -> None:
    request = tiny_request()
    outputs = []
    for context in (prune(request.model), LazyLLM(request.model, "paper")):
        with context:
            outputs.append(request.model.generate(request.prompt_ids, **request.generate_kwargs))
    assert torch.equal(*outputs)


def changed(method: Method) -> Iterator[tuple[str, Any, Method]]:
    """Each parameter set otherwise, to every value that it takes of some."""
    for field in dataclasses.fields(cast(Any, method)):
        before = getattr(method, field.name)
        if before is None:
            continue
        others: Any = WORDS if isinstance(before, str) else (not before,) if isinstance(before, bool) else NUMBERS
        if isinstance(before, PruningSchedule):
            others = [dataclasses.replace(before, **schedule) for schedule in SCHEDULES]
        for value in [(0.3, 0.6)] if isinstance(before, tuple) else others:
            with suppress(UserError):
                yield field.name, value, dataclasses.replace(cast(Any, method), **{field.name: value})


@pytest.mark.parametrize("name", NAMES)
def test_params_are_json_and_make_the_same_method_again_and_a_label_tells_them_all(name: str) -> None:
    labels = {build(name).label: build(name)}
    for field, value, other in changed(build(name)):
        params = json.loads(json.dumps(other.params))
        assert build(name, params) == other, (field, value)
        assert labels.setdefault(label(name, params), other) == other, (field, value)
    if name == "lazyllm":
        assert next(iter(labels)) == "depths=0.3,0.6,0.9 keep=0.7,0.7,0.7"
        assert "nothing pruned" in labels


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
    assert python("-c", code).returncode == 0


def test_a_name_stands_for_one_method() -> None:
    with pytest.raises(UserError, match="two methods are named taper"):
        register(type("Other", (Method,), {"name": "taper", "run": None}))


def test_every_method_says_what_it_is_and_where_it_is_from() -> None:
    for name, kind in METHODS.items():
        assert kind.title
        assert kind.__doc__
        assert name == "baseline" or re.search(r"\d{4}\.\d{5}|Source: none", kind.__doc__), name
