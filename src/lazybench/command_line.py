"""The command line around Hydra: names checked before it composes, one line and exit code 2 for bad input."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lazybench.errors import UserError, unknown_name
from lazybench.tasks.long_context import CHOICES

_jobs: dict[str, int] = {}  # the jobs of this command: overrides to exit code


def register_methods(conf: Path) -> None:
    """Store what has no file of its own: the choices of ``long_context`` for ``task=``, and every method.

    Every file of conf/method is mounted under ``method.<name>``, so that a new method is one file and one config.
    """
    from hydra.core.config_store import ConfigStore

    names = sorted(path.stem for path in (conf / "method").glob("*.yaml"))
    defaults: list[Any] = [{f"method@method.{name}": name} for name in names]
    ConfigStore.instance().store(name="every_method", node={"defaults": [*defaults, "_self_"]})
    for name, node in CHOICES.items():
        ConfigStore.instance().store(group="task", name=name, node=node)


def main(job: Callable[[], Any], conf: Path) -> int:
    """Run Hydra's entry point and give the exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own error and exit with 1; the line below is ours
    try:
        sys.argv[1:] = [_task_of_lm_eval(override) for override in sys.argv[1:]]
        for override in sys.argv[1:]:
            _check_choice(override, conf)
        job()
    except UserError as error:
        return _complain(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _complain(_one_line(error, conf))
    except KeyboardInterrupt:
        return 130
    failed = [f"{overrides} (exit code {code})" for overrides, code in _jobs.items() if code]
    if failed and len(_jobs) > 1:
        print(f"lazybench: {len(failed)} of {len(_jobs)} jobs failed: {'; '.join(failed)}", file=sys.stderr)
    return max(_jobs.values(), default=0)


def run_job(config: DictConfig, conf: Path) -> int:
    """One composed configuration: typed, run, reported. A failing job of a sweep does not stop the others."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    try:
        code = _run(config, conf)
    except Exception:
        if hydra.mode is not RunMode.MULTIRUN:
            raise
        traceback.print_exc()
        code = 1
    note_job(hydra.overrides.task, code)
    return code


def note_job(overrides: Sequence[str], code: int) -> None:
    """Keep how a job ended: here, or, from the launchers, in a process of its own."""
    _jobs[" ".join(overrides)] = code


def _run(config: DictConfig, conf: Path) -> int:
    try:
        OmegaConf.resolve(config)
        # after the names are known to be good: importing torch takes seconds
        from lazybench.config import run_config

        checked = run_config(config, conf)
        if checked.tune is not None:
            from lazybench.tune.search import tune

            return tune(checked)
        from lazybench.runner import run

        return run(checked)
    except UserError as error:
        return _complain(error)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept, the same command goes on from there", file=sys.stderr)
        if len(sys.argv) > 1 and ("-m" in sys.argv or "--multirun" in sys.argv):
            raise  # ends the sweep, not only this job
        return 130


def _complain(error: Exception) -> int:
    print(f"lazybench: {error}", file=sys.stderr)
    return UserError.exit_code


def _task_of_lm_eval(override: str) -> str:
    """``task=lm_eval/gsm8k`` names any generation task of lm-eval: one file of conf/task serves them all."""
    if (match := re.fullmatch(r"task=lm_eval/(?P<name>[\w.\-]+)", override)) is None:
        return override
    os.environ["LAZYBENCH_LM_EVAL_TASK"] = match["name"]  # read by conf/task/lm_eval.yaml
    return "task=lm_eval"


def _check_choice(override: str, conf: Path) -> None:
    group, separator, value = override.partition("=")
    folder = conf / group.split("@")[0].lstrip("+~")
    if not separator or not folder.is_dir() or not re.fullmatch(r"[\w.\-,/]*", value):
        return  # a plain key, or Hydra's own syntax (glob(*), choice(...)), which it checks itself
    known = [path.stem for path in folder.glob("*.yaml")] + (list(CHOICES) if folder.name == "task" else [])
    for choice in value.split(","):
        if group.startswith("hydra/") or choice in ("null", ""):
            continue
        if choice not in known:
            raise unknown_name(group, choice, known)


def _one_line(error: Exception, conf: Path) -> UserError:
    text = " ".join(str(error).split())
    if (match := re.search(r"Could not override '([^']+)'", text)) is not None:
        key = match[1]
        keys = [str(name) for name in OmegaConf.load(conf / "config.yaml") if name not in ("defaults", "hydra")]
        groups = [path.name for path in conf.iterdir() if path.is_dir()]
        close = difflib.get_close_matches(key.split(".")[0], keys + groups, n=3)
        hint = f"did you mean {' or '.join(close)}? " if close and close[0] != key else ""
        if key.split(".")[0] in groups and "is not in struct" in text and not hint:
            hint = f"a key that its file leaves out is added with +{key}=...; "
        return UserError(f"unknown key {key!r}; {hint}`python run.py --help` lists the keys")
    return UserError(text)
