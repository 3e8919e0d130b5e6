"""Every method that a run can name is built from its source's own defaults."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
from tiny_requests import tiny_request

from lazybench.config_groups import method_nodes, pruning_node
from lazybench.contract import Method
from lazybench.errors import UserError
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods.baseline import Baseline
from lazybench.methods.catalogue import build_method, catalogue
from lazybench.pruning.schedule import PruningSchedule

NAMES = list(method_nodes())
NUMBERS = (0, 1, 3, 64, 0.3, 0.7)
WORDS = ("max", "query_max", "reference", "linear", "constant", "continue", "context", "mass", "prompt", "safe")


def build(name: str) -> Method:
    node = method_nodes()[name]
    if "pruning" in node:
        node = {**node, "pruning": pruning_node("paper")}
    return build_method(node["method"], {key: value for key, value in node.items() if key != "method"})


@pytest.mark.parametrize("name", NAMES)
def test_every_method_runs_under_the_clock_and_is_judged(name: str) -> None:
    method = build(name)
    assert name.startswith(method.name)
    request = tiny_request(num_hidden_layers=12)  # asl compares eight of them
    method.prepare(request.model)
    measured = measure(method, request)
    response = measured.response
    assert len(response.new_tokens) == 6
    assert 0 < measured.ttft_s < measured.generation_s
    shares = shares_of(response.work, request)
    assert 0 < shares.prompt_tokens_computed < 2
    assert shares.flops_ratio > 0
    assert len(shares.by_stage) >= 1
    judged = fidelity(method, request, record_reference(Baseline(), request))
    assert 0 <= judged.top1 <= 1
    assert judged.kl >= 0


def test_names_and_labels_tell_the_methods_apart() -> None:
    labels = [(method.name, method.label) for method in map(build, NAMES)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_tells_every_parameter(name: str) -> None:
    """What has one label stands in one row."""
    method: Any = build(name)
    for field in dataclasses.fields(method):
        before = getattr(method, field.name)
        if field.name == "repeats" or before is None or isinstance(before, PruningSchedule):
            continue  # how often is no setting; a schedule has a label of its own
        others = WORDS if isinstance(before, str) else (not before,) if isinstance(before, bool) else NUMBERS
        for value in [(0.3, 0.6)] if isinstance(before, tuple) else others:
            try:
                other = dataclasses.replace(method, **{field.name: value})
            except UserError:
                continue
            assert value == before or other.label != method.label, (field.name, value)


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_methods_parameters_are_read_as_python_would(name: str) -> None:
    """The catalogue reads source without importing it; here it is imported and compared."""
    entry = catalogue()[name]
    module, _, kind = entry.target.rpartition(".")
    method = getattr(importlib.import_module(module), kind)
    plain = {
        field.name: field.default for field in dataclasses.fields(method) if field.default is not dataclasses.MISSING
    }
    assert method.name == name
    assert entry.parameters == plain
    assert entry.summary
    assert entry.papers or name in ("baseline", "first_last")
