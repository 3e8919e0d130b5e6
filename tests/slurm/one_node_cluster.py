"""A real Slurm on this machine: munged, slurmctld and one slurmd, everything in one folder, on free ports.

It installs nothing and touches no system service: Debian's packages slurm-wlm and munge must be there.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
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


def missing_programs() -> list[str]:
    """What Slurm needs and this machine lacks."""
    return [name for name in PROGRAMS if _find(name) is None]


@contextmanager
def one_node_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the three daemons and give the environment in which sbatch and its kin find them; stop them at the end."""
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
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
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


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
