"""What ``group=name`` can say: the files of conf/, and what follows from the code and so stands in no file.

Derived are every key of a model and a schedule with its default (their dataclasses' own; OmegaConf's typed
nodes know neither Literal nor ranges, so ``run.config`` checks the values), the LongBench tasks, a user's own ones, the
published schedules, and the experiments that are another one's runs or a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PRESETS, PruningSchedule
from lazybench.pruning.settings import ABSENT
from lazybench.tasks import REGISTERED
from lazybench.tasks.catalogue import TASKS

SAME_RUNS_AS_TABLE_1 = ("table2", "fig1", "fig7")
FIGURE_6 = [  # one pruning layer, at five depths, and five keep ratios at each
    "baseline",
    *(
        {"method": "lazyllm", "pruning": {"depths": [depth], "keep": [keep]}}
        for depth in (0.1, 0.3, 0.5, 0.7, 0.9)
        for keep in (0.1, 0.3, 0.5, 0.7, 0.9)
    ),
]


@cache
def config_folder() -> Path:
    """conf/: in a checkout the top-level folder, in an installed package the copy inside it."""
    packaged = Path(__file__).parents[1] / "conf"  # in a checkout a link to the former
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "conf"


@cache
def register() -> None:
    """Put everything that is derived beside conf/'s files, for Hydra to compose."""
    nodes = {"model": node_of(ModelSpec), "pruning": node_of(PruningSchedule)}
    add(None, "defaults_of_code", nodes)
    tasks = {name: {"name": name, "datasets": list(datasets), "parameters": {}} for name, datasets in TASKS.items()}
    own = {
        name: {"name": name, "datasets": [name], "parameters": dict(getattr(kind, "parameters", {}))}
        for name, kind in REGISTERED.items()
    }
    for name, node in {**tasks, **own}.items():
        if not (config_folder() / "task" / f"{name}.yaml").is_file():  # one with parameters
            add("task", name, node)
    for name, preset in PRESETS.items():
        add("pruning", name, preset)
    experiments: dict[str, dict[str, Any]] = {  # what is measured already is not run again
        **{name: {"defaults": ["table1"]} for name in SAME_RUNS_AS_TABLE_1},
        "fig6": {"defaults": [{"override /task": "longbench"}], "methods": FIGURE_6},
    }
    for name, node in experiments.items():
        add("experiment", name, node, package="_global_")


def add(group: str | None, name: str, node: Mapping[str, Any], package: str | None = None) -> None:
    """Let ``group=name`` stand for ``node``."""
    ConfigStore.instance().store(group=group, name=name, node=OmegaConf.create(dict(node)), package=package)


def names(group: str) -> list[str]:
    """What a group can be set to, hidden names left out."""
    register()
    known = {path.stem for path in (config_folder() / group).glob("*.yaml")}
    level: Any = ConfigStore.instance().repo
    for part in group.split("/"):
        level = level.get(part, {}) if isinstance(level, dict) else {}
    return sorted(known | {name.removesuffix(".yaml") for name in level if name.endswith(".yaml")})


def groups() -> list[str]:
    """What ``group=name`` chooses from."""
    return sorted({path.name for path in config_folder().iterdir() if path.is_dir()} | {"pruning"})


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that these overrides make, outside of run.py's own.

    Raises:
        hydra.errors.HydraException: an unknown key or choice.
    """
    register()
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base=None):
            return compose("config", list(overrides))
    finally:
        GlobalHydra.instance().hydra = running


def model_file(name: str) -> DictConfig:
    """A file of conf/model with the one that its defaults name beneath it."""
    node = cast(DictConfig, OmegaConf.load(config_folder() / "model" / f"{name}.yaml"))
    below = [model_file(base) for base in node.pop("defaults", []) if base != "_self_"]
    return cast(DictConfig, OmegaConf.merge(*below, node))


def node_of(kind: type[Any]) -> dict[str, Any]:
    """A dataclass's fields with their defaults; ``???`` where there is none."""
    node: dict[str, Any] = {}
    for field in fields(kind):
        if field.default is not MISSING:
            default: Any = field.default
            node[field.name] = asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
        else:
            node[field.name] = ABSENT if field.default_factory is MISSING else field.default_factory()
    return node
