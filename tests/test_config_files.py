"""A file of settings is data: nothing in it runs, imports or reads anything, whichever way it comes in."""

from __future__ import annotations

import pickle
from pathlib import Path
from textwrap import indent

import pytest
from conftest import RunPy
from test_trust import Touch

from lazybench.cli.choices import check_options, prepare, run_config
from lazybench.cli.groups import add, composed
from lazybench.errors import UserError
from lazybench.methods import build

FILE = "method: lazyllm\npresets:\n  own:\n    params:\n      pruning:\n"
LAYERS = "layers: [3]\nkeep: [0.5]\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LAYERS + "depths: {_target_: pandas.read_pickle, _args_: [PICKLE]}", "pruning.depths="),
        (LAYERS + "_target_: lazybench.pruning.schedule.PruningSchedule", "_target_"),
        (LAYERS + "revival: {most: {_target_: pandas.read_pickle, _args_: [PICKLE]}}", "revival.most="),
        ("layers: [3]\nkeep: [{_target_: pandas.read_pickle, _args_: [PICKLE]}]", "pruning.keep[0]="),
        (LAYERS + "revival: {_partial_: true}", "unknown key of lazyllm.pruning.revival '_partial_'"),
        (LAYERS + "_recursive_: false", "_recursive_"),
        (LAYERS + "revival: {_convert_: all}", "unknown key of lazyllm.pruning.revival '_convert_'"),
        (LAYERS + "generated: ${oc.env:HOME}", "generated"),
        ("layers: [3]\nkeep: ['${oc.decode:${oc.env:KEEP}}']", "pruning.keep[0]="),
        (LAYERS + "revival: {like: '${seed}'}", "revival.like"),
        ("layers: !!python/object/apply:os.mkdir [TRACE]", "is no file of"),
        ("layers: &a [3]\nkeep: *a", "repeats another part"),
        (LAYERS + "include_path: folder", "include_path"),
        ("- 1", "must have parts"),
        ("layers: [", "is no file of"),
    ],
)
def test_a_file_of_settings_runs_nothing(text: str, key: str, tmp_path: Path) -> None:
    trace, stored, file = tmp_path / "trace", tmp_path / "stored.pickle", tmp_path / "own.yaml"
    stored.write_bytes(pickle.dumps(Touch(trace)))
    text = FILE + indent(text.replace("PICKLE", str(stored)).replace("TRACE", str(trace)), " " * 8)
    file.write_text(text, encoding="utf-8")
    ways = (
        lambda: run_config(composed(prepare([f"methods=[{{method: lazyllm, preset: '{file}@own'}}]"]))),
        lambda: build("lazyllm", {"preset": f"{file}@own"}),
    )
    for way in ways:
        with pytest.raises(UserError) as told:
            way()
        line = str(told.value)
        assert "own.yaml" in line
        assert key in line
    assert not trace.exists()


OPTIONS = ("dir=D", "d=D", "path=D", "name=N")


@pytest.mark.parametrize(
    "override",
    [
        *(f"--config-{option}" for option in OPTIONS),
        *("-cd=D", "-cp=D", "--experimental-rerun=P"),
        "hydra.searchpath=[file:///tmp]",
        "++hydra.searchpath=[/tmp]",
        "hydra={searchpath: [/tmp]}",
        'pruning="../../own"',
        'model="/tmp/own"',
        "hydra/launcher=../../own",
        "hydra/sweeper=/tmp/own",
        "model=choice(smollm2,../../own)",
        "+hydra/callbacks=~/own",
        "+/tmp/own=x",
        "hydra/../own=x",
    ],
)
def test_hydra_reads_the_projects_own_files_alone(override: str) -> None:
    check = check_options if override.startswith("-") else prepare
    with pytest.raises(UserError, match="could name code"):
        check([override, "limit=1"])


@pytest.mark.parametrize("group", ["task", "experiment"])
def test_only_the_command_line_names_code(group: str, tmp_path: Path, command: RunPy) -> None:
    """A file that has lm-eval or us import a folder's Python is refused before anything is imported."""
    (tmp_path / "strangers.py").write_text("from pathlib import Path\nPath('trace').touch()\n", encoding="utf-8")
    parameters = {"include_path": str(tmp_path)}
    add("task", "of_a_stranger", {"name": "own", "datasets": ["lm_eval/own"], "parameters": parameters})
    add("experiment", "of_a_stranger", {"plugins": ["strangers"]}, package="_global_")
    done = command(f"{group}=of_a_stranger")
    assert done.returncode == 2
    assert "stands in a file and names code; say it on the command line" in done.stderr
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=os.getcwd",
        "pruning._target_=os.getcwd",
        "methods=[{method: lazyllm, _target_: os.getcwd}]",
        "method=/tmp/own",
        "data._target_=a.b",
    ],
)
def test_a_class_is_no_setting(override: str) -> None:
    with pytest.raises(UserError, match=r"unknown (key|parameter)"):
        run_config(composed([override if override.startswith("methods") else f"+{override}"]))
