"""Quality without a clock has a timed run's numbers, from one pass a sample and method; measured anew they match."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import LAZY, QUICK
from transformers import GenerationMixin, PreTrainedModel

from lazybench.cli.choices import run_config
from lazybench.cli.groups import composed
from lazybench.report.__main__ import main as report
from lazybench.report.checks import Check, config_of
from lazybench.report.page import write_run_report
from lazybench.report.verify import COLUMNS, remeasured
from lazybench.report.verify import main as verify
from lazybench.run.reading import read_records, read_run
from lazybench.run.runner import run

OF_METHODS = f"methods=[baseline,{{method: first_last, keep: 0.5}},{LAZY}]"


def test_without_a_clock_the_numbers_are_a_timed_runs_and_there_are_no_times(small_runs: Path) -> None:
    timed = {record.key: record for record in read_records(small_runs / "timed" / "samples.jsonl")}
    judged = read_records(small_runs / "judged" / "samples.jsonl")
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
    pruned = [record for record in judged if record.method in ("first_last", "lazyllm")]
    assert all(float(record.fidelity_kl or 0) > 0 for record in pruned)


@pytest.mark.parametrize("of_methods", [OF_METHODS, OF_METHODS.replace("baseline,", "")], ids=["baseline", "none"])
def test_a_sample_is_generated_once_for_each_method(
    of_methods: str, small_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    common = (f"model.path={small_runs}/model", *QUICK, "limit=2", of_methods, "timing=false", "scoring=false")
    assert run(run_config(composed([*common, f"out={tmp_path}/out"])), write_run_report) == 0
    assert len(generations) == 2 * 3 + 1  # loading tries one token
    judged = read_records(small_runs / "judged" / "samples.jsonl")
    kl = {record.key: record.fidelity_kl for record in judged}
    records = read_records(tmp_path / "out" / "samples.jsonl")
    assert len(records) == 2 * (3 if "baseline" in of_methods else 2)
    assert [record.fidelity_kl for record in records] == pytest.approx([kl[record.key] for record in records], abs=1e-6)


def test_a_table_and_a_page_without_times_have_no_column_for_them(small_runs: Path) -> None:
    assert report([str(small_runs / "judged"), "--out", str(small_runs / "report")]) == 0
    assert {path.name for path in (small_runs / "report").iterdir()} == {
        "summary.csv",
        "table.md",
        "index.html",
        "tradeoff.png",
    }
    for path in (small_runs / "judged" / "table.md", small_runs / "report" / "index.html"):
        text = path.read_text(encoding="utf-8").partition("What was run")[0]
        assert "KL nats" in text
        assert "FLOPs ratio" in text
        assert not re.search("TTFT|decoding step|no baseline", text)
    assert "TTFT speedup" in (small_runs / "timed" / "table.md").read_text(encoding="utf-8")


def anew(folder: Path, count: int) -> dict[str, Check]:
    run = read_run(folder)
    return remeasured(run, config_of(run), count)


@pytest.mark.parametrize("name", ["timed", "judged"])
def test_an_honest_run_matches_in_every_column(small_runs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (small_runs / name).iterdir() if path.is_file()}
    assert verify([str(small_runs / name), "--remeasure", "99"]) == 0
    said = capsys.readouterr().out
    count = len(read_run(small_runs / name).records)
    for column in ("prediction", "fidelity_kl", "fidelity_top1", "flops_ratio", "prompt_tokens_computed"):
        assert f"{column}: {count} of {count} measured anew: match\n" in said
    assert {path: path.read_bytes() for path in (small_runs / name).iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("fidelity_kl", 0.5), ("fidelity_top1", -0.5), ("prediction", "better"), ("output_tokens", 9)),
        *(("flops_ratio", 2.5), ("prompt_tokens_computed", 0.3), ("kv_bytes_end", 1)),
    ],
)
def test_a_value_changed_by_hand_differs(small_runs: Path, tmp_path: Path, column: str, value: Any) -> None:
    shutil.copytree(small_runs / "judged", tmp_path / "run")
    samples = tmp_path / "run" / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    changed = next(line for line in lines if line["method"] == "lazyllm")
    changed[column] = value
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = anew(tmp_path / "run", 99)
    assert [name for name, check in found.items() if check.different] == [column]
    assert len(found[column].different) == 1


def test_a_part_is_drawn_and_other_weights_are_no_check(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = anew(small_runs / "judged", 1)
    assert found["fidelity_kl"].compared == len(read_run(small_runs / "judged").records) // 2  # one of two samples
    assert set(found) <= set(COLUMNS)
    shutil.copytree(small_runs / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert verify([str(small_runs / "judged"), "--remeasure", "1", "--model-path", str(tmp_path / "model")]) == 2
    assert "the model at hand is not the one measured" in capsys.readouterr().out
