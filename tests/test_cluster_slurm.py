"""hydra/launcher=slurm on a real Slurm: time limits and requeue with resume, shards, lost jobs. `make test-slurm`.

The Slurm is munged, slurmctld and one slurmd, everything in one folder, on free ports: it installs nothing and touches
no system service. Debian's packages slurm-wlm and munge must be there.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, run_environment

from lazybench.report.results import load

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


MISSING = [name for name in PROGRAMS if _find(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (slurm-wlm and munge)"),
]
START_TIMEOUT_S = 60
SLURM_CONF = """\
ClusterName=one_node
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a requeued job may start again once its credential has expired; the default is two minutes
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# no control groups, no accounting: neither is at hand in a container
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_interval=5
KillWait=5
ReturnToService=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1024 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""
ONE_CORE = ("gpus_per_node=null", "cpus_per_task=1", "mem_gb=null", "timeout_min=1", "signal_delay_s=10")
LAUNCHER = ("-m", "hydra/launcher=slurm", *(f"hydra.launcher.{option}" for option in ONE_CORE))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The three daemons started, as the environment in which sbatch and its kin find them; stopped at the end."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        SLURM_CONF.format(
            host=host,
            folder=folder,
            user=getpass.getuser(),
            cpus=os.cpu_count(),
            controller_port=_free_port(),
            node_port=_free_port(),
        )
    )
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    environment = {**run_environment(), "SLURM_CONF": str(configuration)}
    with ExitStack() as daemons:
        start = [
            f"munged --foreground --force --key-file={key} --socket={folder}/munge.socket --pid-file={folder}/munge.pid"
            f" --log-file={folder}/munge.log --seed-file={folder}/munge.seed",
            "slurmctld -D -c",
            f"slurmd -D -N {host}",
        ]
        for command in start:
            daemons.enter_context(_daemon(command.split(), folder, environment))
            time.sleep(1)
        _wait_until_idle(environment, folder)
        yield environment


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    program = _find(command[0])
    assert program is not None
    with (folder / f"{command[0]}.out").open("w") as output:
        process = subprocess.Popen([program, *command[1:]], env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        if state.stdout.strip() == "idle":
            return
        time.sleep(1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"Slurm did not come up in {START_TIMEOUT_S} s: {state.stdout}{state.stderr}\n{logs}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
