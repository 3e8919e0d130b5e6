"""Whatever a setting is, a run starts or one line names it; and a file of settings is data: nothing in it runs."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from conftest import RunPy
from omegaconf import OmegaConf
from test_trust import Touch

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import add, composed, groups
from lazybench.cli.main import is_hydras, one_line, unread_schedule
from lazybench.errors import UserError
from lazybench.methods import build
from lazybench.tasks import build_task

VALUES: tuple[Any, ...] = (None, "text", -1, 1.5, [], {}, True)
EXPERIMENTS = ("size=null", "experiment=latency", "task=needle", "pruning=authors_linear")


def keys(node: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key, with those of its parts: ``("model",)``, ``("model", "dtype")``."""
    found = []
    for name, value in node.items():
        found += [(*above, name), *(keys(value, (*above, name)) if isinstance(value, dict) else ())]
    return found


@pytest.mark.parametrize("override", EXPERIMENTS)
def test_every_key_takes_a_value_or_names_itself_in_one_line(override: str) -> None:
    start = composed(prepare([override, "methods=[baseline,lazyllm]", "limit=1"]))
    base: Any = OmegaConf.to_container(start, resolve=True)
    for path in keys(base):
        if override != EXPERIMENTS[0] and path[0] not in override and path[0] != "methods":
            continue  # the same as without it
        for value in VALUES:
            config = parent = copy.deepcopy(base)
            for part in path[:-1]:
                parent = parent[part]
            parent[path[-1]] = value
            try:
                run = run_config(config)  # as Hydra would have composed it, a hundred times sooner
                if path[0] == "task":
                    for name in run.datasets:
                        build_task(name, run.data).samples()
            except UserError as error:
                line = str(error)
                assert "\n" not in line
                assert path[-1] in line, (path, value, line)


@pytest.mark.parametrize("value", ["null", "text", "-1", "1.5", "[]", "{}", "true", "", "null,null"])
def test_every_group_takes_a_choice_or_one_line(value: str) -> None:
    for group in groups():
        try:
            run_config(composed(prepare([f"{group}={value}"])))
        except Exception as error:
            if not isinstance(error, UserError) and not is_hydras(error):
                raise
            line = str(error if isinstance(error, UserError) else one_line(error))
            assert "\n" not in line
            assert group in line


@pytest.mark.parametrize(
    ("overrides", "read"),
    [
        (["pruning=none", "methods=[baseline]"], False),
        (["+pruning.keep=[0.5,0.5,0.5]", "methods=[baseline,taper]"], False),
        (["pruning.keep=[0.5,0.5,0.5]", "methods=[baseline,{method: lazyllm, pruning: none}]"], False),
        (["pruning=none", "methods=[baseline,{method: lazyllm, preset: mine.yaml@2x}]"], False),
        ([], True),
        (["pruning=authors_linear"], True),
        (["pruning.ratio_of=context", "methods=[{method: lazyllm, pruning: {layers: [3], keep: [0.5]}}]"], True),
        (["model=custom", "model.hub_id=a/b", "model.path=null", "methods=[baseline]"], True),
    ],
)
def test_a_schedule_that_no_method_reads_is_named(
    overrides: list[str], read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calibrated = {"method": "lazyllm", "presets": {"2x": {"params": {"pruning": {"layers": [3], "keep": [0.5]}}}}}
    Path("mine.yaml").write_text(json.dumps(calibrated))
    config = composed(prepare(overrides))
    said = unread_schedule(overrides, config, run_config(config))
    assert bool(re.match(r"\+?pruning.* does nothing: none of methods=\[baseline", said)) != read, said


FILE = "method: lazyllm\npresets:\n  own:\n    params:\n      pruning:\n"
LAYERS = "layers: [3]\nkeep: [0.5]\n"
SETTINGS = (
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
)
FILES = (
    (None, "no such file"),
    ("presets: {own: {params: {}}}", "is no file of"),
    ("method: taper\npresets: [own]", "is no file of"),
    ("method: taper\npresets: {own: 7}", "is no file of"),
    ("method: taper\npresets: {own: {params: 7}}", "holds no parameters"),
    ("method: lazyllm\npresets: {own: {params: {}}}", "calibrated for lazyllm"),
    ("method: taper\npresets: {other: {params: {}}}", "unknown preset"),
    ("method: taper\npresets: {own: {params: {kep: [1]}}}", "did you mean keep"),
    ("method: taper\npresets: {own: {params: {depths: [0.5], keep: [2.0]}}}", "keep"),
    ("[" * 99, "is no file of"),
    ("method: taper\n# " + "x" * 1_000_001, "more than 1,000,000 bytes"),
)


@pytest.mark.parametrize(
    ("method", "text", "key"),
    [
        *(("lazyllm", FILE + indent(text, " " * 8), key) for text, key in SETTINGS),
        *(("taper", text, key) for text, key in FILES),
    ],
)
def test_a_file_of_settings_is_settings_or_one_line_and_runs_nothing(
    method: str, text: str | None, key: str, tmp_path: Path
) -> None:
    trace, stored, file = tmp_path / "trace", tmp_path / "stored.pickle", tmp_path / "own.yaml"
    stored.write_bytes(pickle.dumps(Touch(trace)))
    if text is not None:
        file.write_text(text.replace("PICKLE", str(stored)).replace("TRACE", str(trace)), encoding="utf-8")
    ways = (
        lambda: run_config(composed(prepare([f"methods=[{{method: {method}, preset: '{file}@own'}}]"]))),
        lambda: build(method, {"preset": f"{file}@own"}),
    )
    for way in ways:
        with pytest.raises(UserError) as told:
            way()
        line = str(told.value)
        assert "own.yaml" in line
        assert key in line
    assert not trace.exists()


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
