"""References on disk: read back bit by bit, found again for what is the same alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_measure_fidelity import Counted
from tiny_requests import tiny_request

from lazybench.errors import UserError
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.reference_store import ReferenceStore
from lazybench.methods.baseline import Baseline
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request

SAMPLE = {"task": "qa/easy", "data_fingerprint": "f0", "sample_id": "a 1"}


@pytest.fixture(scope="module")
def request_() -> Request:
    return tiny_request(new_tokens=4)


def test_a_reference_is_recorded_once_and_read_back_as_it_was(request_: Request, tmp_path: Path) -> None:
    baseline, fresh = Counted(keep=1.0), record_reference(Baseline(), request_)
    for _ in range(3):  # each a store of its own, as in another process
        found = ReferenceStore(tmp_path / "references", "tiny", baseline).get(request_, **SAMPLE)
        assert torch.equal(found.tokens, fresh.tokens)
        assert torch.equal(found.log_probabilities, fresh.log_probabilities)
        assert fidelity(RandomDrop(0.5), request_, found) == fidelity(RandomDrop(0.5), request_, fresh)
    assert len(baseline.runs) == 1
    assert [path.name[:12] for path in (tmp_path / "references").iterdir()] == ["qa_easy-a_1-"]


def test_whatever_a_reference_depends_on_has_a_file_of_its_own(request_: Request, tmp_path: Path) -> None:
    baseline = Counted(keep=1.0)
    store = ReferenceStore(tmp_path, "tiny", baseline)
    store.get(request_, **SAMPLE)
    changed_prompt = request_.prompt_ids.clone()
    changed_prompt[0, 5] += 1
    shorter = {**request_.generate_kwargs, "max_new_tokens": 3, "min_new_tokens": 3}
    others = [
        lambda: ReferenceStore(tmp_path, "tiny, another revision", baseline).get(request_, **SAMPLE),
        *(lambda name=name: store.get(request_, **{**SAMPLE, name: "another"}) for name in SAMPLE),
        lambda: store.get(replace(request_, prompt_ids=changed_prompt), **SAMPLE),
        lambda: store.get(replace(request_, generate_kwargs=shorter), **SAMPLE),
    ]
    for count, other in enumerate(others, start=2):
        other()
        assert len(baseline.runs) == len(list(tmp_path.iterdir())) == count


def test_a_file_cut_short_and_a_folder_that_is_none_are_named(request_: Request, tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "tiny", Baseline())
    store.get(request_, **SAMPLE)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"reference .* can't be read; delete it"):
        store.get(request_, **SAMPLE)
    with pytest.raises(UserError, match=r"reference .* can't be written"):
        ReferenceStore(path, "tiny", Baseline()).get(request_, **SAMPLE)
