"""The command line around Hydra: names checked before it composes, one line and exit code 2 for bad input."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from lazybench.cli.groups import config_folder, register
from lazybench.cli.unused import unused_settings
from lazybench.errors import UserError, refuse
from lazybench.run.entry import command, show_any_character

if TYPE_CHECKING:
    from lazybench.run.config import RunConfig

GPU = "experiment=gpu"
_jobs: dict[str, int] = {}  # the jobs of this command: overrides to exit code


@command
def main() -> int:
    """``run.py`` and the command ``lazybench``: run what this process's arguments say.

    Returns:
        The exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted.
    """
    from lazybench.cli.choices import prepare, refuse_other_files
    from lazybench.cli.help import answer_help

    arguments = sys.argv[1:] = _shapes_of_gpu(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own error and exit with 1; the line below is ours
    try:
        if (text := answer_help(arguments)) is not None:
            print(text)
            return 0
        refuse_other_files(arguments)
        register()
        sys.argv[1:] = prepare(arguments)
        _hydra_job()
        if len(_jobs) > 1:
            _end_of_sweep(arguments)
        if GPU in arguments:
            _page_of_gpu(arguments)
    except KeyboardInterrupt:
        return 130
    return max(_jobs.values(), default=0)


@hydra.main(version_base=None, config_path=str(config_folder()), config_name="config")
def _hydra_job(config: DictConfig) -> int:
    """One composed configuration: typed, run, reported. A failing job of a sweep does not stop the others."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    show_any_character()  # a launcher's job is a process of its own
    settings = HydraConfig.get()
    sweep = settings.mode is RunMode.MULTIRUN
    try:
        code = _run(config, settings.overrides.task, sweep)
    except Exception:
        if not sweep:
            raise
        traceback.print_exc()
        code = 1
    note_job(settings.overrides.task, code)
    return code


def _shapes_of_gpu(arguments: list[str]) -> list[str]:
    """``experiment=gpu`` runs three shapes, one after another, unless a model is named or a configuration asked for."""
    which = ("model=", "model.path=", "model.hub_id=", "model.config=")  # after a + too
    named = any(argument.lstrip("+").startswith(which) for argument in arguments)
    if GPU not in arguments or named or {"--cfg", "-c"} & set(arguments):
        return arguments
    sweep = [] if {"--multirun", "-m"} & set(arguments) else ["--multirun"]
    return ["model=llama2,llama3_1,qwen2_5_7b", *arguments, *sweep]


def _page_of_gpu(arguments: Sequence[str]) -> None:
    from lazybench.cli.sweep import run_folders
    from lazybench.report.__main__ import build

    folders = [folder for folder in run_folders(arguments) if (folder / "samples.jsonl").exists()]
    if folders:
        out = Path("results/artefacts/gpu") if len(folders) > 1 else None
        build(folders, out, only=["gpu"], texts=False, data_root=None)


def note_job(overrides: Sequence[str], code: int) -> None:
    """Keep how a job ended: here, or, from the launchers, in a process of its own."""
    _jobs[" ".join(overrides)] = code


def _run(config: DictConfig, overrides: Sequence[str], sweep: bool) -> int:
    try:
        OmegaConf.resolve(config)
        unused = unused_settings(overrides, cast(dict[str, Any], OmegaConf.to_container(config)))
        if unused and not sweep:
            raise UserError("; ".join(unused) + "; leave it out")
        for line in unused:  # another job of the sweep may read it
            print(f"lazybench: {line}", file=sys.stderr)
        from lazybench.run.config import run_config

        checked = run_config(config, sweep)
        _check_who_names_code(checked, overrides)
        if checked.dry_run:
            from lazybench.cli.forecast import dry_run

            return dry_run(checked)
        if (checked.out / "done").exists():
            counts = json.loads((checked.out / "done").read_text(encoding="utf-8"))
            again = (
                f"its {counts['failed']} failed samples are tried again" if counts["failed"] else "here is its table"
            )
            print(f"{checked.out} is finished, nothing is measured twice: {again}; tag=NAME measures anew", flush=True)
        if checked.tune is not None:
            from lazybench.cli.tune.search import tune

            return tune(checked)
        from lazybench.run.runner import run

        return run(checked)
    except UserError as error:
        return refuse(error)
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) or "what was finished is kept"
        print(f"interrupted; {kept}; the same command goes on from there", file=sys.stderr)
        if sweep:
            raise  # ends the sweep, not only this job
        return 130


def _check_who_names_code(checked: RunConfig, overrides: Sequence[str]) -> None:
    """lm-eval's task files import Python: their folder is for the person at the command line to name, for no file."""
    key = "task.parameters.include_path"
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    if (folder := checked.data.parameters.get("include_path")) and not typed & {key, "task.parameters"}:
        raise UserError(f"{key}={folder} stands in a file and names code; say it on the command line to run it")


def _end_of_sweep(arguments: Sequence[str]) -> None:
    """One table of all jobs, and the names of those that failed."""
    from lazybench.cli.sweep import print_table, run_folders

    print_table(run_folders(arguments))
    failed = [f"{job} (exit code {code})" for job, code in _jobs.items() if code]
    if failed:
        print(f"lazybench: {len(failed)} of {len(_jobs)} jobs failed: {'; '.join(failed)}", file=sys.stderr)
