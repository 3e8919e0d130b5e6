"""hydra/launcher=slurm on a real Slurm: time limits and requeue with resume, shards, lost jobs. `make test-slurm`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_environment
from slurm.one_node_cluster import missing_programs, one_node_cluster

from lazybench.report.results import load

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())} (slurm-wlm and munge)"
    ),
]
ONE_CORE = ("gpus_per_node=null", "cpus_per_task=1", "mem_gb=null", "timeout_min=1", "signal_delay_s=10")
LAUNCHER = ("-m", "hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in ONE_CORE))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with one_node_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**run_environment(), **environment}


def start_sweep(cluster: dict[str, str], checkpoint: Path, cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    task = ("task=needle", "task.parameters.length=150", f"model.path={checkpoint}", "methods=[baseline,lazyllm]")
    command = [sys.executable, str(ROOT / "run.py"), *LAUNCHER, *task, "fidelity=false", *overrides]
    return subprocess.Popen(command, cwd=cwd, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def logs(cwd: Path) -> str:
    return "\n".join(path.read_text() for path in cwd.glob("results/sweeps/**/*.err"))


def test_a_job_that_meets_its_time_limit_is_requeued_and_goes_on(
    cluster: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """More work than one start may take (Slurm warns 20 to 50 s after it): 20 generations of 1,000 tokens."""
    sweep = start_sweep(
        cluster, tiny_checkpoint, tmp_path, "limit=10", "max_new_tokens=1000", f"out={tmp_path}/run", "warmup=0"
    )
    output, errors = sweep.communicate()
    assert sweep.returncode == 0, errors + logs(tmp_path)
    array = re.search(r"Slurm array (\d+) of 1 jobs", output)
    assert array is not None, output
    job = subprocess.run(
        ["scontrol", "show", "job", array[1]], env=cluster, capture_output=True, text=True, check=True
    ).stdout
    restarts = re.search(r"Restarts=(\d+)", job)
    assert restarts is not None, job
    assert int(restarts[1]) >= 1
    assert (tmp_path / "run" / "done").exists()
    records = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    keys = {(record["sample_id"], record["method"]) for record in records}
    assert len(keys) == len(records) == 20
    assert all(record["error"] is None for record in records)
    resumed = json.loads((tmp_path / "run" / "provenance.json").read_text())["resumed"]
    assert 1 <= len(resumed) <= int(restarts[1])  # a start that met its limit before a whole sample leaves no trace
    assert all(0 < entry["after_records"] < 20 for entry in resumed)


def test_shards_run_as_one_array_and_merge_while_failed_and_killed_jobs_are_named(
    cluster: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Two good shards, one that does not exist, one that is killed without warning."""
    sweep = start_sweep(
        cluster, tiny_checkpoint, tmp_path, "limit=8", "max_new_tokens=1000", "warmup=0", "shard=0/4,1/4,2/4,7/4"
    )
    killed = kill_third_job(cluster, tmp_path)
    output, errors = sweep.communicate()
    assert killed, output + errors + logs(tmp_path)
    assert sweep.returncode == 2, errors  # the worst of them: bad input
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lazybench: 2 of 4 jobs failed")
    assert "shard=2/4 (exit code 1)" in last
    assert "shard=7/4 (exit code 2)" in last
    assert "ended without a result" in errors
    runs = load([tmp_path / "results" / "runs"]).runs
    assert {"0/4", "1/4"} <= {run.shard for run in runs}
    assert len({record.sample_id for run in runs for record in run.records}) >= 4


def kill_third_job(cluster: dict[str, str], cwd: Path) -> bool:
    """SIGKILL to every process of array task 2 once it runs, so that nothing in it can tell."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        queue = subprocess.run(
            ["squeue", "-h", "-t", "running", "-o", "%i"], env=cluster, capture_output=True, text=True, check=True
        ).stdout.split()
        for job in queue:
            if job.endswith("_2"):
                time.sleep(2)
                subprocess.run(["scancel", "--signal=KILL", job], env=cluster, check=True)
                return True
        time.sleep(0.2)
    return False
