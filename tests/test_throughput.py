"""Padded batches by the command: a row for each size and method, refusals in words, bad input in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_requests import tiny_request

from lazybench.pruning.schedule import PruningSchedule
from lazybench.throughput import main, seconds_of


def arguments(checkpoint: Path, *more: str) -> list[str]:
    where = [f"model.path={checkpoint}", "model.dtype=float32", "task=needle", "task.parameters.length=80"]
    return [*where, "max_new_tokens=3", *more]


def test_every_size_and_method_has_a_row(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "methods=[baseline,lazyllm,gemfilter,snapkv]"
    assert main([*arguments(tiny_checkpoint, methods), "--batch", "1,3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:] if line]
    assert [row[0] for row in cells] == ["1"] * 4 + ["3"] * 4
    for row in cells:
        if row[1].startswith(("Baseline", "LazyLLM")):
            assert float(row[2]) > 0
            assert float(row[3]) > float(row[2])  # a prompt is longer than three tokens
    assert [row[4] for row in cells if row[1] == "Baseline"] == ["1.00", "1.00"]
    assert all("one prompt at a time" in row[2] for row in cells if row[1].startswith("GemFilter"))
    (padded,) = (row for row in cells if row[0] == "3" and row[1].startswith("SnapKV"))
    assert padded[2].startswith("refused: keys are evicted alike in all rows of a batch")


def test_what_is_timed_is_the_batch_as_it_is() -> None:
    request = tiny_request()
    ids = torch.cat([request.prompt_ids, request.prompt_ids.flip(1)])
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    seen = []
    hook = request.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    policy = PruningSchedule(layers=(1, 4), keep=(0.5, 0.5)).policy()
    assert seconds_of(request.model, policy, {"input_ids": ids, "attention_mask": mask}, request.generate_kwargs) > 0
    hook.remove()
    prefills = [kwargs for kwargs in seen if kwargs["input_ids"].shape[1] > 1]
    assert len(seen) == 4 * 6  # a warm-up and three timed, six tokens each
    assert len(prefills) == 4
    assert torch.equal(prefills[0]["attention_mask"], mask)


@pytest.mark.parametrize(
    ("more", "said"), [(("--batch", "0"), "at least 1"), (("--batch", "2,x"), "at least 1"), (("limt=3",), "limit")]
)
def test_bad_input_is_one_line(
    more: tuple[str, ...], said: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(tiny_checkpoint), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_more_rows_than_samples_is_one_line(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(tiny_checkpoint, "task.parameters.samples=2"), "--batch", "5"]) == 2
    assert "choose --batch 2 or less" in capsys.readouterr().err
