"""Whatever a key is set to, a run starts or one line names the key; settings that a run would not read are named."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed, groups
from lazybench.cli.main import is_hydras, one_line, unread_schedule
from lazybench.errors import UserError
from lazybench.tasks import build_task

VALUES: tuple[Any, ...] = (None, "text", -1, 1.5, [], {}, True)
EXPERIMENTS = (
    "size=null",
    "experiment=latency",
    "task=needle",
    "pruning=authors_linear",
)


def plain(*overrides: str) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(composed(prepare(overrides)), resolve=True)
    return config


def keys(node: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key, with those of its parts: ``("model",)``, ``("model", "dtype")``."""
    found = []
    for name, value in node.items():
        found += [(*above, name), *(keys(value, (*above, name)) if isinstance(value, dict) else ())]
    return found


@pytest.mark.parametrize("override", EXPERIMENTS)
def test_every_key_takes_a_value_or_names_itself_in_one_line(override: str) -> None:
    base = plain(override, "methods=[baseline,lazyllm]", "limit=1")
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
