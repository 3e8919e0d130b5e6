"""A run without a model: opens a run folder and appends what is missing. Killed by test_store_faults.py."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from lazybench.errors import UserError
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder


def record(number: int, error: str | None = None) -> Record:
    return Record(
        *("tiny", "qasper", "single_doc_qa", "lazyllm", {"pruning": {"layers": [1], "keep": [0.5]}}, f"s{number}"),
        repeat=number % 2, prompt_tokens=100 + number, ttft_s=0.125, score=0.5,
        prediction="an answer, é世界 \n" * (number % 40),
        prompt_tokens_computed_by_step=((0.5, 0.25),) * 3, error=error,
    )  # fmt: skip


def die_at_fsync(count: int) -> None:
    """SIGKILL ourselves right before the count-th fsync: the moments between a write and the next one."""
    true_fsync, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        true_fsync(descriptor)

    os.fsync = fsync


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--fail", type=int, nargs="*", default=[], help="samples that fail")
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--die-at-fsync", type=int, default=0)
    parser.add_argument("--file-limit-bytes", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.die_at_fsync:
        die_at_fsync(arguments.die_at_fsync)
    if arguments.file_limit_bytes:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_limit_bytes, arguments.file_limit_bytes))
    config = {"model": {"name": "tiny", "dtype": "auto"}, "seed": 0, "shard": "0/1"}
    facts = {"commit": "c0ffee", "model": {"sha256": "1"}, "tasks": {"qasper": {"fingerprint": "2"}}}
    try:
        with RunFolder.open(arguments.folder, config, facts) as folder:
            print("open", len(folder.done), flush=True)
            for number in range(arguments.samples):
                new = record(number, "OutOfMemoryError: too big" if number in arguments.fail else None)
                if new.key not in folder.done:
                    folder.append(new)
                    print("appended", number, flush=True)
                    time.sleep(arguments.pause_s)
            folder.finish()
            return 1 if folder.failed() else 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
