"""A real run that is killed again and again. Started by test_main_interrupts.py.

Each child goes on with the run as ``run.py`` does, until it is killed some lines later or at a random moment, by
SIGKILL, Ctrl-C and SIGTERM by turns; the last one may finish. Children are forked, so that torch is imported once.
Prints one JSON list: for each child its signal, exit code, standard error, and samples.jsonl as it left it.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch  # noqa: F401 - what every child would import, imported before the first is forked

import lazybench.run.runner  # noqa: F401

RUN_PY = Path(__file__).parent.parent / "run.py"
KILLS = 20


def main() -> None:
    samples = Path(sys.argv[1]) / "samples.jsonl"
    sys.argv = [str(RUN_PY), f"out={sys.argv[1]}", *sys.argv[2:]]
    draw, children = random.Random(0), []
    for number in range(KILLS + 1):
        with tempfile.TemporaryFile() as errors:
            child = fork_run(errors.fileno())
            name = "none" if number == KILLS else ("SIGKILL", "SIGINT", "SIGTERM")[number % 3]
            if name != "none":
                wait_for_lines(samples, count_lines(samples) + draw.randrange(1, 5))
                time.sleep(draw.random() * 0.05)
                os.kill(child, getattr(signal, name))
            _, status = os.waitpid(child, 0)
            errors.seek(0)
            said = errors.read().decode()
        code = os.waitstatus_to_exitcode(status)
        children.append({"signal": name, "code": code, "stderr": said, "samples": samples.read_text()})
    print(json.dumps(children))


def fork_run(errors: int) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    code = 1
    try:
        runpy.run_path(str(RUN_PY), run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def count_lines(samples: Path) -> int:
    return samples.read_bytes().count(b"\n") if samples.exists() else 0


def wait_for_lines(samples: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while count_lines(samples) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{samples} has {count_lines(samples)} lines, not {lines}")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
