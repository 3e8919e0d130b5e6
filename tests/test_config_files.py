"""A file of settings is data: nothing in it runs, imports or reads anything, whichever way it comes in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lazybench.cli import main as command_line
from lazybench.cli.choices import check_options, prepare, run_config
from lazybench.cli.groups import add, composed
from lazybench.errors import UserError


@pytest.mark.parametrize(
    "option",
    [
        "--config-dir=D",
        "--config-d=D",
        "-cd=D",
        "--config-path=D",
        "-cp=D",
        "--config-name=N",
        "--experimental-rerun=P",
    ],
)
def test_hydras_options_for_other_files_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="could name code"):
        check_options([option, "limit=1"])


@pytest.mark.parametrize(
    "override",
    [
        "hydra.searchpath=[file:///tmp]",
        "++hydra.searchpath=[/tmp]",
        "hydra={searchpath: [/tmp]}",
        'pruning="../../own"',
        'model="/tmp/own"',
        "hydra/launcher=../../own",
        "+method=/tmp/own",
        "hydra/sweeper=/tmp/own",
        "model=choice(smollm2,../../own)",
        "+hydra/callbacks=~/own",
        "+/tmp/own=x",
        "hydra/../own=x",
    ],
)
def test_hydras_groups_read_the_projects_own_files_alone(override: str) -> None:
    with pytest.raises(UserError, match="could name code"):
        prepare([override])


def test_only_the_command_line_names_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task's file that has lm-eval import a folder's Python is refused before anything is imported."""
    parameters = {"include_path": str(tmp_path)}
    add("task", "of_a_stranger", {"name": "own", "datasets": ["lm_eval/own"], "parameters": parameters})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "task=of_a_stranger", "dry_run=true"])
    assert command_line.main() == 2
    assert "names code; say it on the command line" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=os.getcwd",
        "pruning._target_=os.getcwd",
        "method.lazyllm._target_=os.getcwd",
        "data._target_=a.b",
    ],
)
def test_a_class_is_no_setting(override: str) -> None:
    with pytest.raises(UserError, match=r"unknown (key|parameter)"):
        run_config(composed([f"+{override}"]))
