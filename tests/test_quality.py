"""Quality without a clock: the same numbers as a timed run's, from one pass a sample and method, and no times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import RunPy
from transformers import GenerationMixin, PreTrainedModel

from lazybench.cli.choices import run_config
from lazybench.cli.groups import composed
from lazybench.report.__main__ import main as report
from lazybench.report.page import write_run_report
from lazybench.report.results import load
from lazybench.report.verify import main as verify
from lazybench.run.reading import read_records
from lazybench.run.runner import run

QUICK = ("task=needle", "task.parameters.length=150", "max_new_tokens=4", "model.dtype=float32", "limit=2")
OF_METHODS = "methods=[baseline,{method: first_last, keep: 0.5},{method: lazyllm, pruning: {layers: [1], keep: [0.3]}}]"


@pytest.fixture(scope="module")
def runs(tiny_checkpoint: Path, run_py: RunPy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timed run, and the same without a clock in two shards."""
    root = tmp_path_factory.mktemp("runs")
    common = (f"model.path={tiny_checkpoint}", *QUICK, OF_METHODS)
    done = run_py(*common, f"out={root}/timed", "warmup=0")
    assert done.returncode == 0, done.stderr
    for shard in (0, 1):
        done = run_py(*common, "timing=false", f"shard={shard}/2", f"out={root}/judged{shard}")
        assert done.returncode == 0, done.stderr
    return root


def test_without_a_clock_the_numbers_are_a_timed_runs_and_there_are_no_times(runs: Path) -> None:
    timed = {record.key: record for record in read_records(runs / "timed" / "samples.jsonl")}
    judged = [record for n in (0, 1) for record in read_records(runs / f"judged{n}" / "samples.jsonl")]
    assert {record.key for record in judged} == timed.keys()
    for record in judged:
        other = timed[record.key]
        assert record.error is record.ttft_s is record.generation_s is record.decode_step_s is None
        assert record.fidelity_kl == pytest.approx(other.fidelity_kl, abs=1e-6)
        assert record.fidelity_first_kl == pytest.approx(other.fidelity_first_kl, abs=1e-6)
        for name in (
            *("fidelity_top1", "fidelity_first_top1", "score", "prediction", "flops_ratio", "prompt_tokens"),
            *("kv_bytes_prefill", "aux_bytes_prefill"),  # what is revived later hangs on the tokens that are forced
        ):
            assert getattr(record, name) == getattr(other, name), name
    pruned = [record for record in judged if record.method != "baseline"]
    assert all(float(record.fidelity_kl or 0) > 0 for record in pruned)


@pytest.mark.parametrize("of_methods", [OF_METHODS, OF_METHODS.replace("baseline,", "")], ids=["baseline", "none"])
def test_a_sample_is_generated_once_for_each_method(
    of_methods: str, runs: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass that records the reference is the baseline's own; without a baseline it is made all the same.

    The baseline is the first method of one sample and the last of the other.
    """
    generations: list[int] = []
    generate = GenerationMixin.generate

    def counted(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        generations.append(1)
        return generate(model, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", counted)
    common = (f"model.path={tiny_checkpoint}", *QUICK, of_methods, "timing=false", "scoring=false")
    assert run(run_config(composed([*common, f"out={tmp_path}/out"])), write_run_report) == 0
    assert len(generations) == 2 * 3 + 1  # loading tries one token
    judged = [record for n in (0, 1) for record in read_records(runs / f"judged{n}" / "samples.jsonl")]
    kl = {record.key: record.fidelity_kl for record in judged}
    records = read_records(tmp_path / "out" / "samples.jsonl")
    assert len(records) == 2 * (3 if "baseline" in of_methods else 2)
    assert [record.fidelity_kl for record in records] == pytest.approx([kl[record.key] for record in records], abs=1e-6)


def test_a_table_and_a_page_without_times_have_no_column_for_them(runs: Path) -> None:
    assert report([str(runs / "judged0"), "--out", str(runs / "report")]) == 0
    assert {path.name for path in (runs / "report").iterdir()} == {
        "summary.csv",
        "table.md",
        "index.html",
        "tradeoff.png",
    }
    for path in (runs / "judged0" / "table.md", runs / "report" / "index.html"):
        text = path.read_text(encoding="utf-8").partition("What was run")[0]
        assert "KL nats" in text
        assert "FLOPs ratio" in text
        assert not re.search("TTFT|decoding step|no baseline", text)
    assert "TTFT speedup" in (runs / "timed" / "table.md").read_text(encoding="utf-8")


def test_shards_share_rows_and_verify(runs: Path) -> None:
    results = load([runs / "judged0", runs / "judged1"])
    assert set(results.summary["n"]) == {2}
    assert results.notes == []
    assert verify([str(runs / "judged0")]) == 0
