"""What Hydra finds only in the package ``hydra_plugins``: a sweeper that keeps how jobs end, a launcher for Slurm.

Every start of the program scans this file, so it imports nothing heavy.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

from lazybench.errors import UserError

LOST = 1  # exit code of a job that left no result: killed, cancelled, timed out too often
POLL_S = 5.0
POLLS_UNTIL_GONE = 3  # a result is written on one machine and read on another: shared file systems lag


class LazybenchSweeper(BasicSweeper):
    """Hydra's own, which throws away what the jobs of another process return: here the command line learns of it."""

    def sweep(self, arguments: list[str]) -> Any:
        from lazybench.cli.sweep import ended

        batches = super().sweep(arguments)
        for result in (result for batch in batches for result in batch):
            ended[" ".join(result.overrides)] = result.return_value
        return batches


class LazybenchSlurmLauncher(SlurmLauncher):
    """Sends the jobs of a sweep to Slurm as one array, and waits for all of them.

    Hydra's own ends the sweep at the first job that was killed, so that nobody hears of the others. Before the time
    limit Slurm sends SIGUSR2 (``signal_delay_s``); submitit then asks Slurm to put the job back into the queue, up to
    ``max_num_timeout`` times, and the rerun goes on from the run's folder.
    """

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        # the requeue ends this process with SIGTERM, which must not pass for a user's interrupt:
        # an interrupted job returns a result, and this one has none yet
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return super().checkpoint(*args, **kwargs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=slurm: no sbatch here; start it where Slurm is, or take hydra/launcher=joblib"
            )
        import submitit

        options = dict(self.params)
        folder = options.pop("submitit_folder")
        executor = submitit.AutoExecutor(
            cluster="slurm", folder=folder, slurm_max_num_timeout=options.pop("max_num_timeout")
        )
        shared = BaseQueueConf.__dataclass_fields__
        named = {name if name in shared else f"slurm_{name}": value for name, value in options.items()}
        executor.update_parameters(**named)
        arguments = [
            (list(overrides), "hydra.sweep.dir", number, f"job_{number}", Singleton.get_state())
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        try:
            jobs = executor.map_array(self, *zip(*arguments, strict=True))
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"Slurm takes no such job: {' '.join(str(error).split())[:300]}") from None
        array = jobs[0].job_id.split("_")[0]
        print(f"Slurm array {array} of {len(jobs)} jobs; logs: {Path(folder).parent}", flush=True)
        return [_wait(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]


def _wait(job: Any, overrides: Sequence[str]) -> JobReturn:
    """What one Slurm job returned, once it has left the queue; a lost one counts as failed and stops nothing."""
    absent = 0
    while not job.paths.result_pickle.exists() and absent < POLLS_UNTIL_GONE:
        time.sleep(POLL_S)
        absent = 0 if _in_queue(job.job_id) else absent + 1
    if job.paths.result_pickle.exists():
        try:
            return job.result()
        except Exception as error:  # raised in the job, outside what it measures; submitit gives its trace as text
            print(error, file=sys.stderr)
    else:
        print(f"Slurm job {job.job_id} ended without a result; its log: {job.paths.stderr}", file=sys.stderr)
    return JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=(LOST, None))


def _in_queue(job_id: str) -> bool:
    """Whether Slurm still holds the job, running or waiting (to be run again, too); true when Slurm does not answer."""
    query = subprocess.run(
        ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"], capture_output=True, text=True, check=False
    )
    if query.returncode:
        return "Invalid job id" not in query.stderr  # Slurm forgets ended jobs after a few minutes
    return bool(query.stdout.strip())
