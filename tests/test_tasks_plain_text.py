"""experiment=latency: prompts of exact lengths, every method generating the same number of tokens, no score."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import RunPy

from lazybench.run.reading import read_records
from lazybench.tasks import DataSettings, build_task

SHAPE = "+model.config={model_type: llama, vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64}"  # noqa: E501


def latency(run_py: RunPy, out: Path, lengths: str, *more: str):
    return run_py("experiment=latency", f"task.datasets=[{lengths}]", "repeats=1", f"out={out}", *more)


def test_prompts_have_exactly_the_length_asked_for(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    done = latency(run_py, tmp_path, "plain_text_100,plain_text_333", f"model.path={tiny_checkpoint}")
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "samples.jsonl")
    assert {(record.task, record.prompt_tokens) for record in records} == {
        ("plain_text_100", 100),
        ("plain_text_333", 333),
    }
    assert {record.output_tokens for record in records} == {64}
    assert {record.method for record in records} == {"baseline", "lazyllm"}
    assert all(record.score is None for record in records)
    assert "score" not in done.stdout
    for part in ("TTFT speedup", "FLOPs ratio", "decoding step x"):
        assert part in done.stdout
    head = (tmp_path / "summary.csv").read_text().split("\n", 1)[0].split(",")
    assert {"flops_ratio", "efficiency", "generation_speedup", "memory_ratio"} <= set(head)


def test_random_weights_have_room_for_any_length(run_py: RunPy, tmp_path: Path) -> None:
    random = ("model=custom", "model.weights=random", SHAPE)
    done = latency(run_py, tmp_path, "plain_text_100", *random, "task.parameters.prompts=1")
    assert done.returncode == 0, done.stderr
    facts = yaml.safe_load((tmp_path / "provenance.json").read_text())
    assert facts["model"]["window_tokens"] == 164
    assert "random weights" in (tmp_path / "table.md").read_text()


def test_every_stretch_is_another_text() -> None:
    samples = build_task("plain_text_50", DataSettings(parameters={"prompts": 3})).samples()
    assert len({sample.prompt for sample in samples}) == 3
