"""hydra/launcher=joblib: jobs of a sweep in worker processes of this machine, each on a GPU of its own."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from conftest import RunPy

from lazybench.cli.sweep import take_own_gpu
from lazybench.report.results import load


@pytest.mark.parametrize(
    ("worker", "gpu"), [("LokyProcess-1", "3"), ("LokyProcess-2", "5"), ("LokyProcess-3", "3"), ("MainProcess", "3,5")]
)
def test_a_worker_takes_a_gpu_of_its_own_and_keeps_it(worker: str, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joblib itself would start all of them on the first GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("LAZYBENCH_GPU", "")  # restored afterwards
    monkeypatch.delenv("LAZYBENCH_GPU")
    monkeypatch.setattr(multiprocessing.current_process(), "_name", worker)
    for _ in range(2):  # the second job of the same worker
        take_own_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu


@pytest.mark.slow
def test_shards_run_in_parallel_and_merge_and_a_failed_job_is_named(
    tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path
) -> None:
    done = run_py(
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        f"model.path={tiny_checkpoint}",
        "task=needle",
        "task.parameters.length=150",
        "max_new_tokens=4",
        "limit=4",
        "shard=0/2,1/2,5/2",
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "1 of 3 jobs failed" in done.stderr.strip().splitlines()[-1]
    assert "shard=5/2 (exit code 2)" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    runs = load([tmp_path / "results" / "runs"]).runs
    assert all(run.finished for run in runs)
    assert sorted(run.shard for run in runs) == ["0/2", "1/2"]
    assert len({record.sample_id for run in runs for record in run.records}) == 4
