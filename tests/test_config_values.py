"""Whatever a key is set to, a run starts or one line names the key; settings that a run would not read are named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from omegaconf import OmegaConf

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed, groups
from lazybench.cli.main import is_hydras, one_line
from lazybench.cli.unused import unused_settings
from lazybench.errors import UserError
from lazybench.run.config import RunConfig
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


def checked(config: dict[str, Any], key: str, value: Any) -> RunConfig:
    assert isinstance(unused_settings([f"{key}={value}"], config), list)
    return run_config(config)  # as Hydra would have composed it, a hundred times sooner


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
                run = checked(config, ".".join(path), value)
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
    ("overrides", "words"),
    [
        (["pruning.layers=[3]", "pruning.depths=[0.3]", "pruning.keep=[0.5]"], ["pruning.depths", "pruning.layers"]),
        (["pruning=none", "methods=[baseline]"], ["pruning", "methods=[baseline]"]),
        (["pruning.keep=[0.5,0.5,0.5]", "methods=[{method: lazyllm, pruning: none}]"], ["pruning.keep"]),
    ],
)
def test_each_is_named_in_one_line(overrides: list[str], words: list[str]) -> None:
    (line,) = unused_settings(overrides, plain(*overrides))
    assert "does nothing" in line
    assert "\n" not in line
    assert all(word in line for word in words)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["pruning=authors_linear"],
        ["pruning.layers=[3]", "pruning.keep=[0.5]"],  # the preset's own depths give way, as documented
        ["pruning.ratio_of=context", "methods=[{method: lazyllm, pruning: {layers: [3], keep: [0.5]}}]"],
        ["task=qasper", "data.root=/folder"],
        ["task=longbench", "data.root=/folder", "limit=3"],
        ["timing=false", "warmup=0"],
        ["model=custom", "model.hub_id=a/b", "model.path=null"],
        ["experiment=fig5", "size=mini", "data.root=/folder"],
    ],
)
def test_what_is_read_is_not_named(overrides: list[str]) -> None:
    assert unused_settings(overrides, plain(*overrides)) == []
