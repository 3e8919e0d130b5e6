"""conf/method: every file builds its method; the documented sixth method is one file and one config."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_requests import tiny_request

import lazybench.methods
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods.baseline import Baseline

CONFIGS = sorted((ROOT / "conf/method").glob("*.yaml"))


def build(path: Path):
    config = OmegaConf.create({"pruning": OmegaConf.load(ROOT / "conf/pruning/paper.yaml"), "it": OmegaConf.load(path)})
    return instantiate(config.it, _convert_="all")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs_under_the_clock_and_is_judged(path: Path) -> None:
    method = build(path)
    assert path.stem.startswith(method.name)
    request = tiny_request()
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
    labels = [(method.name, method.label) for method in map(build, CONFIGS)]
    assert len(set(labels)) == len(labels)


def test_the_documented_method_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/add_a_method.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", text, re.DOTALL):
        (tmp_path / Path(name).name).write_text(code, encoding="utf-8")
    monkeypatch.setattr(lazybench.methods, "__path__", [*lazybench.methods.__path__, str(tmp_path)])
    try:
        method = build(tmp_path / "middle_cut.yaml")
    finally:
        sys.modules.pop("lazybench.methods.middle_cut", None)
    request = tiny_request()
    response = method.run(request)
    ids = request.prompt_ids
    shorter = torch.cat([ids[:, :15], ids[:, 45:]], dim=1)
    plain = request.model.generate(shorter, **request.generate_kwargs)
    assert torch.equal(response.new_tokens, plain[0, 30:])
    assert shares_of(response.work, request).prompt_tokens_computed == 0.5
