"""Where Hydra's DictConfig ends: everything below takes these typed dataclasses, validated at construction.

No import of torch before every value that can be judged without it was: a bad one is answered at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lazybench.choices import model_node
from lazybench.config_groups import node_of, pruning_fields
from lazybench.errors import UserError, check_whole_number, naming, unknown_name
from lazybench.errors import plain as as_data
from lazybench.methods import Method, build, find
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PruningSchedule
from lazybench.tasks.base import DataSettings

SWITCHES = ("fidelity", "scoring", "timing", "attention_map", "launches", "dry_run")
HOW_A_MODEL_RUNS = ("dtype", "device", "device_map", "attention", "quantization", "prompt_limit_tokens")
AS_THEY_ARE = ("repeats", "warmup", "max_new_tokens", "seed", "threads", "tracker")  # the others are typed on the way


@dataclass(frozen=True)
class TuneSettings:
    """What a search for a method's settings is told: how long to search, in which space, and on which models.

    Args:
        trials: settings to try, all jobs together.
        stages: the most prunings on the way through the layers.
        least_keep: the smallest keep ratio tried.
        held: choices of the method that stay as it has them, as in [window, heads]; empty: all are searched.
        speedups: FLOPs ratios to find settings for.
        models: names or paths, as ``model=`` takes them, that every trial is judged on; empty: the run's model.
        left_out: models that only confirm what was found.
        timeout_s: stop after this many seconds even if trials are left; None: never.
        storage: a database URL of Optuna; None: a journal in the run's folder, which jobs may share.
        job: number of this job among those that share the search; it only moves the seed.
    """

    trials: int = 100
    stages: int = 6
    least_keep: float = 0.2
    held: tuple[str, ...] = ()
    speedups: tuple[float, ...] = (1.5, 2.0, 3.0)
    models: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    timeout_s: float | None = None
    storage: str | None = None
    job: int = 0

    def __post_init__(self) -> None:
        for name in ("held", "speedups", "models", "left_out"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise UserError(f"tune.{name}={value} must be a list, as in 'tune.{name}=[{value}]'")
            object.__setattr__(self, name, tuple(value))
        for name, number, least in (("trials", self.trials, 1), ("stages", self.stages, 1), ("job", self.job, 0)):
            check_whole_number(f"tune.{name}", number, least)
        if not isinstance(self.least_keep, int | float) or not 0 < self.least_keep < 1:
            raise UserError(f"tune.least_keep={self.least_keep} must be a share between 0 and 1, as in 0.1")
        if not self.speedups or not all(isinstance(ratio, int | float) and ratio > 1 for ratio in self.speedups):
            raise UserError(f"tune.speedups={list(self.speedups)} must be FLOPs ratios above 1, as in [1.5,2,3]")
        if self.timeout_s is not None and (not isinstance(self.timeout_s, int | float) or self.timeout_s <= 0):
            raise UserError(f"tune.timeout_s={self.timeout_s} must be a number of seconds above 0, or null")
        named = [*self.models, *self.left_out]
        if twice := [name for name in named if named.count(name) > 1]:
            raise UserError(f"tune.models and tune.left_out name {twice[0]} twice")

    @classmethod
    def from_config(cls, block: Mapping[str, Any]) -> TuneSettings:
        """Check the names too.

        Raises:
            UserError: a key or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        for name in block:
            if name not in known:
                raise unknown_name("key of tune", str(name), known)
        return cls(**block)


@dataclass(frozen=True)
class RunConfig:
    """One run: a model, datasets, methods, and how they are measured."""

    model: ModelSpec
    task_name: str  # "qasper", or a category's name
    datasets: tuple[str, ...]
    data: DataSettings
    methods: tuple[Method, ...]
    repeats: int
    warmup: int
    max_new_tokens: int | None
    seed: int
    fidelity: bool
    scoring: bool
    threads: int | None
    tracker: str
    out: Path
    resolved: dict[str, Any]  # the configuration as plain data, for config.yaml
    timing: bool = True  # false: fidelity and score alone, without a clock
    references: Path | None = None  # folder of the baseline's outputs; None: in out, or with timing in memory
    attention_map: bool = False  # keep figure 2's measurement of the first prompt
    tune: TuneSettings | None = None  # search for a method's settings instead of measuring the methods
    launches: bool = False  # count kernel launches and waits too
    dry_run: bool = False  # say what would run, and end

    def __post_init__(self) -> None:
        for name, value, least in (
            ("repeats", self.repeats, 1),
            ("warmup", self.warmup, 0),
            ("seed", self.seed, 0),
            ("limit", self.data.limit, 1),
            ("max_new_tokens", self.max_new_tokens, 1),
            ("threads", self.threads, 1),
        ):
            if value is not None:
                check_whole_number(name, value, least)
        for name in SWITCHES:
            if not isinstance(switch := getattr(self, name), bool):
                raise UserError(f"{name}={switch} must be true or false")
        if not self.timing and not self.fidelity:
            raise UserError("timing=false and fidelity=false leave nothing to measure; set one of them to true")
        if self.tracker not in ("none", "wandb"):
            raise unknown_name("tracker", str(self.tracker), ["none", "wandb"])
        for method in self.methods:
            if self.methods.count(method) > 1:
                twice = f"{method.name} {method.label}".strip()
                raise UserError(f"methods names {twice!r} twice; each may stand once in a run")


def run_config(config: DictConfig, sweep: bool = False) -> RunConfig:
    """Check and type a composed configuration.

    Args:
        sweep: this is one of several jobs, so ``tag`` names a folder of folders.

    Raises:
        UserError: any value that is not allowed, in one line.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    chosen = _methods(plain)
    identity = _identity(plain, chosen)
    root = plain["data"].get("root")
    task = plain["task"]
    checked = RunConfig(
        model=_build(config.model, "model"),
        task_name=task["name"],
        datasets=tuple(_listed(task["datasets"], "task.datasets", "qasper,lcc")),
        data=DataSettings(
            root=Path(str(root)).expanduser() if root else None,
            limit=plain["limit"],
            seed=plain["seed"] if isinstance(plain["seed"], int) else 0,
            shard=_shard(plain["shard"]),
            parameters=task.get("parameters") or {},
        ),
        methods=chosen,
        out=_folder(plain, identity, sweep),
        references=Path(str(plain["references"])).expanduser() if plain["references"] else None,
        resolved=identity,
        tune=None if plain["tune"] is None else TuneSettings.from_config(plain["tune"]),
        **{name: plain[name] for name in (*AS_THEY_ARE, *SWITCHES)},
    )
    for name in [*checked.tune.models, *checked.tune.left_out] if checked.tune else []:
        with_model(checked, name)
    return checked


def with_model(config: RunConfig, name: str) -> RunConfig:
    """The same run with another model, named as ``model=`` names one.

    ``model.dtype=`` and the like hold for it too, unless its own file says otherwise.

    Raises:
        UserError: no such model.
    """
    node, plain = model_node(name), node_of(ModelSpec)
    node |= {field: getattr(config.model, field) for field in HOW_A_MODEL_RUNS if node[field] == plain[field]}
    return replace(config, model=_build(OmegaConf.create(node), "model"), resolved=config.resolved | {"model": node})


def run_folder(config: DictConfig, sweep: bool = False) -> Path:
    """Where a configuration's run goes: the same one always means the same folder, so an interrupted run is found.

    Raises:
        UserError: a tag that is no folder's name.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    return _folder(plain, _identity(plain, _methods(plain)), sweep)


def _folder(plain: Mapping[str, Any], identity: Mapping[str, Any], sweep: bool) -> Path:
    tag = plain["tag"]
    if plain["out"]:
        if tag is not None:
            raise UserError(f"tag={tag} and out={plain['out']} both name the run's folder; give one")
        return Path(str(plain["out"]))
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.\-]+", "_", f"{identity['model']['name']}-{identity['task']['name']}")
    runs = Path("results/runs")
    if tag is None:
        return runs / f"{name}-{digest}"
    if re.fullmatch(r"\w[\w.\-]*", str(tag)) is None:
        raise UserError(f"tag={tag} must be letters, digits, '.', '_' or '-': it names a folder of {runs}")
    several = sweep or _shard(plain["shard"])[1] > 1
    return runs / str(tag) / f"{name}-{digest}" if several else runs / str(tag)


def _identity(plain: Mapping[str, Any], methods: Sequence[Method]) -> dict[str, Any]:
    """What was asked, as plain data: of the methods those that run, nothing of where it goes."""
    no_part = ("out", "tag", "method", "tracker", "dry_run", "references")
    identity = {key: value for key, value in plain.items() if key not in no_part}
    identity["methods"] = [{"method": method.name, **method.params} for method in methods]
    if plain["tune"] is not None:  # jobs that share a search share its folder
        identity["tune"] = {key: value for key, value in plain["tune"].items() if key != "job"}
    return identity


def _listed(value: Any, name: str, example: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name}={value!r} must be a list with at least one entry, as in '{name}=[{example}]'")
    return value


def _shard(text: Any) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"shard={text} must be index/count with the index from 0 below the count, as in shard=0/4")
    return int(match[1]), int(match[2])


def _methods(plain: Mapping[str, Any]) -> tuple[Method, ...]:
    return tuple(_method(entry, plain) for entry in _listed(plain["methods"], "methods", "baseline,lazyllm"))


def _method(entry: Any, plain: Mapping[str, Any]) -> Method:
    """A method by name, or by name with its own parameters: ``{method: lazyllm, pruning: {layers: [9]}}``."""
    own = dict(entry) if isinstance(entry, dict) else {"method": entry}
    name = own.pop("method", None)
    if not isinstance(name, str) or not name:
        raise UserError(f"methods={entry} names no method; its parameters stand beside it: {{method: lazyllm, ...}}")
    params = {**plain["method"][find(name).name], **own}
    if isinstance(pruning := own.get("pruning"), str):  # a preset by its name
        params["pruning"] = as_data(PruningSchedule(**pruning_fields(pruning)))
    elif isinstance(pruning, dict):
        params["pruning"] = {**plain["pruning"], **pruning}
    if isinstance(params.get("pruning"), dict):
        params["pruning"].pop("_target_", None)
    if isinstance(params.get("draft"), str):  # a model, as ``model=`` names one
        params["draft"] = _build(OmegaConf.create(model_node(params["draft"])), "model")
    return build(name, params)


def _build(node: DictConfig, what: str) -> Any:
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise naming(what, cause) from (None if isinstance(cause, UserError) else error)
