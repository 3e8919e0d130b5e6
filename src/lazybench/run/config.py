"""Where Hydra's DictConfig ends: everything below takes these typed dataclasses, validated at construction.

No import of torch before every value that can be judged without it was: a bad one is answered at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf

from lazybench import methods
from lazybench.cli.choices import model_node
from lazybench.cli.groups import node_of, pruning_fields
from lazybench.errors import UserError, check_whole_number, naming_errors, unknown_name
from lazybench.methods import Method
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import build, typed
from lazybench.pruning.settings import plain as as_data
from lazybench.tasks import check_name
from lazybench.tasks.base import DataSettings

SWITCHES = ("fidelity", "scoring", "timing", "attention_map", "launches", "dry_run")
HOW_A_MODEL_RUNS = ("dtype", "device", "device_map", "attention", "quantization", "prompt_limit_tokens")
AS_THEY_ARE = ("repeats", "warmup", "max_new_tokens", "seed", "threads", "tracker", "references", "tune")
PARTS = ("model", "data", "task", "method")  # keys with keys of their own
KEYS = {*AS_THEY_ARE, *SWITCHES, *PARTS, "methods", "pruning", "limit", "shard", "tag", "out"}


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
        for name, number, least in (("trials", self.trials, 1), ("stages", self.stages, 1), ("job", self.job, 0)):
            check_whole_number(f"tune.{name}", number, least)
        if not 0 < self.least_keep < 1:
            raise UserError(f"tune.least_keep={self.least_keep} must be a share between 0 and 1, as in 0.1")
        if not self.speedups or min(self.speedups) <= 1:
            raise UserError(f"tune.speedups={list(self.speedups)} must be FLOPs ratios above 1, as in [1.5,2,3]")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise UserError(f"tune.timeout_s={self.timeout_s} must be a number of seconds above 0, or null")
        named = [*self.models, *self.left_out]
        if twice := [name for name in named if named.count(name) > 1]:
            raise UserError(f"tune.models and tune.left_out name {twice[0]} twice")


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
        if not self.timing and not self.fidelity:
            raise UserError("timing=false and fidelity=false leave nothing to measure; set one of them to true")
        if self.tracker not in ("none", "wandb"):
            raise unknown_name("tracker", str(self.tracker), ["none", "wandb"])
        for method in self.methods:
            if self.methods.count(method) > 1:
                twice = f"{method.name} {method.label}".strip()
                raise UserError(f"methods names {twice!r} twice; each may stand once in a run")


def run_config(config: DictConfig | Mapping[str, Any], sweep: bool = False) -> RunConfig:
    """Check and type a composed configuration.

    Args:
        config: as Hydra composes it, or the same as plain data.
        sweep: this is one of several jobs, so ``tag`` names a folder of folders.

    Raises:
        UserError: any value that is not allowed, in one line.
    """
    plain = _plain(config)
    chosen = _methods(plain)
    identity = _identity(plain, chosen)
    task = build(_TaskNode, plain["task"], "task")
    for name in task.datasets:
        check_name(name)
    types = get_type_hints(RunConfig, localns={"Method": object}) | get_type_hints(DataSettings)
    checked = RunConfig(
        model=build(ModelSpec, plain["model"], "model"),
        task_name=task.name,
        datasets=task.datasets,
        data=DataSettings(
            root=build(_DataNode, plain["data"], "data").root,
            limit=typed(types["limit"], plain["limit"], "limit"),
            seed=typed(int, plain["seed"], "seed"),
            shard=_shard(plain["shard"]),
            parameters=_parameters(task),
        ),
        methods=chosen,
        out=_folder(plain, identity, sweep),
        resolved=identity,
        **{name: typed(types[name], plain[name], name) for name in (*AS_THEY_ARE, *SWITCHES)},
    )
    for key in ("models", "left_out") if checked.tune else ():
        for name in getattr(checked.tune, key):
            with naming_errors(f"tune.{key}"):
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
    return replace(config, model=build(ModelSpec, node, "model"), resolved=config.resolved | {"model": node})


def run_folder(config: DictConfig, sweep: bool = False) -> Path:
    """Where a configuration's run goes: the same one always means the same folder, so an interrupted run is found.

    Raises:
        UserError: a tag that is no folder's name.
    """
    plain = _plain(config)
    return _folder(plain, _identity(plain, _methods(plain)), sweep)


@dataclass(frozen=True)
class _DataNode:
    root: Path | None = None


@dataclass(frozen=True)
class _TaskNode:
    name: str
    datasets: tuple[str, ...]
    parameters: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError("task.datasets=[] must be a list with at least one entry, as in 'task.datasets=[qasper]'")


def _plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The composed configuration as plain data, with every key that a run has and no other."""
    resolved = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)
    plain = cast(dict[str, Any], resolved)
    if unknown := plain.keys() - KEYS:
        raise unknown_name("key", min(map(str, unknown)), KEYS)
    if missing := KEYS - plain.keys():
        raise UserError(f"{min(missing)} was taken away; every run has it: leave out ~{min(missing)}")
    for name in PARTS:
        typed(Mapping[str, Any], plain[name], name)
    return plain


def _parameters(task: _TaskNode) -> Mapping[str, Any]:
    """The task's own, with the one that is a path as the others are."""
    parameters = dict(task.parameters or {})
    if parameters.get("include_path") is not None:
        parameters["include_path"] = str(typed(Path, parameters["include_path"], "task.parameters.include_path"))
    return parameters


def _folder(plain: Mapping[str, Any], identity: Mapping[str, Any], sweep: bool) -> Path:
    tag, out = typed(str | None, plain["tag"], "tag"), typed(Path | None, plain["out"], "out")
    if out is not None:
        if tag is not None:
            raise UserError(f"tag={tag} and out={out} both name the run's folder; give one")
        return cast(Path, out)
    known = json.loads(json.dumps(identity, default=str))  # keys as text: others have no order among them
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.\-]+", "_", f"{identity['model']['name']}-{identity['task']['name']}")
    runs = Path("results/runs")
    if tag is None:
        return runs / f"{name}-{digest}"
    if re.fullmatch(r"\w[\w.\-]*", tag) is None:
        raise UserError(f"tag={tag} must be letters, digits, '.', '_' or '-': it names a folder of {runs}")
    several = sweep or _shard(plain["shard"])[1] > 1
    return runs / tag / f"{name}-{digest}" if several else runs / tag


def _identity(plain: Mapping[str, Any], methods: Sequence[Method]) -> dict[str, Any]:
    """What was asked, as plain data: of the methods those that run, nothing of where it goes."""
    no_part = ("out", "tag", "method", "tracker", "dry_run", "references")
    identity = {key: value for key, value in plain.items() if key not in no_part}
    identity["methods"] = [{"method": method.name, **method.params} for method in methods]
    if isinstance(plain["tune"], Mapping):  # jobs that share a search share its folder
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
    known = typed(Mapping[str, Any], plain["method"].get(methods.find(name).name, {}), f"method.{name}")
    params = _merged(known, own)
    if isinstance(pruning := own.get("pruning"), str):  # a preset by its name
        params["pruning"] = as_data(PruningSchedule(**pruning_fields(pruning)))
    if isinstance(params.get("draft"), str):  # a model, as ``model=`` names one
        with naming_errors(f"{name}.draft={params['draft']}"):
            params["draft"] = build(ModelSpec, model_node(params["draft"]), "model")
    return methods.build(name, params)


def _merged(node: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The node with these of its values in place of its own, part by part."""
    both_parts = {
        key: _merged(node[key], new)
        for key, new in changes.items()
        if isinstance(new, dict) and isinstance(node.get(key), dict)
    }
    return {**node, **changes, **both_parts}
