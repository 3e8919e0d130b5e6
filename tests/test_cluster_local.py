"""hydra/launcher=joblib: jobs of a sweep in worker processes of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RunPy

from lazybench.report.results import load


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
