"""Settings of the command line that a run would not read are named."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lazybench.cli.groups import config_folder, register
from lazybench.cli.unused import unused_settings


def told(overrides: list[str]) -> list[str]:
    register()
    with initialize_config_dir(str(config_folder()), version_base=None):
        config = compose("config", overrides)
    OmegaConf.resolve(config)
    plain: Any = OmegaConf.to_container(config)
    return unused_settings(overrides, plain)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pruning.layers=[3]", "pruning.depths=[0.3]", "pruning.keep=[0.5]"], ["pruning.depths", "pruning.layers"]),
        (["pruning=none", "methods=[baseline]"], ["pruning", "methods=[baseline]"]),
        (["pruning.keep=[0.5,0.5,0.5]", "methods=[{method: lazyllm, pruning: none}]"], ["pruning.keep"]),
    ],
)
def test_each_is_named_in_one_line(overrides: list[str], words: list[str]) -> None:
    (line,) = told(overrides)
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
        ["task=ruler", "data.root=/folder"],
        ["timing=false", "warmup=0"],
        ["model=custom", "model.hub_id=a/b", "model.path=null"],
        ["experiment=fig5", "size=mini", "data.root=/folder"],
    ],
)
def test_what_is_read_is_not_named(overrides: list[str]) -> None:
    assert told(overrides) == []
