"""``experiment=gpu``, as far as a CPU can tell: its way through, its profile of revived tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunPy
from tiny_models import random_prompt, tiny_model

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.budgets import Revival
from lazybench.run.reading import read_records

LIKE_TEXT = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.7), revival=Revival(like="smollm2"))


def test_as_many_tokens_come_back_as_in_real_text():
    model, prompt = tiny_model("llama"), random_prompt(200, seed=1)
    with LazyLLM(model, LIKE_TEXT) as lazy:
        model.generate(prompt, max_new_tokens=12, do_sample=False)
    revived = [step.revived[1:] for step in lazy.trace.steps[1:]]
    wanted = [tuple(LIKE_TEXT.revival.most_in(stage, step, 200) for stage in (1, 2, 3)) for step in range(1, 12)]
    assert revived[0] == wanted[0] == (14, 17, 16)  # 7.0%, 8.5% and 8.1% of 200
    assert all(
        fewer <= most for counts in zip(revived, wanted, strict=True) for fewer, most in zip(*counts, strict=True)
    )
    with LazyLLM(model, PruningSchedule((0, 1, 2), (0.7, 0.7, 0.7))) as lazy:
        model.generate(prompt, max_new_tokens=3, do_sample=False)
    assert sum(lazy.trace.steps[1].revived) > sum(wanted[0])  # what random weights would bring back


@pytest.mark.slow
def test_it_runs_at_reduced_depth_on_a_cpu(run_py: RunPy, tmp_path: Path):
    methods = "methods=[baseline,{method: lazyllm, pruning: {revival: {like: smollm2}}}]"
    small = ("size=smoke", "model=smollm2", "model.num_layers=2", "model.device=cpu", "max_new_tokens=4")
    done = run_py("experiment=gpu", *small, methods, f"out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    baseline, lazy = (
        record
        for name in ("baseline", "lazyllm")
        for record in read_records(tmp_path / "run" / "samples.jsonl")
        if record.method == name
    )
    assert lazy.params == {"pruning": {"revival": {"like": "smollm2"}}}
    assert lazy.details["revived_tokens_per_step"] > 0
    assert baseline.ttft_s > 0
    assert (tmp_path / "run" / "index.html").exists()
