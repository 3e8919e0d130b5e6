"""Where Hydra's DictConfig ends: everything below takes these typed dataclasses, validated at construction."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lazybench.contract import Method
from lazybench.errors import UserError, check_whole_number, unknown_name
from lazybench.models.spec import ModelSpec
from lazybench.tasks.base import DataSettings
from lazybench.tune.settings import TuneSettings


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
    attention_map: bool = False  # keep figure 2's measurement of the first prompt
    tune: TuneSettings | None = None  # search for a schedule instead of measuring the methods

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
        for name, switch in (
            ("fidelity", self.fidelity),
            ("scoring", self.scoring),
            ("attention_map", self.attention_map),
        ):
            if not isinstance(switch, bool):
                raise UserError(f"{name}={switch} must be true or false")
        if self.tracker not in ("none", "wandb"):
            raise unknown_name("tracker", str(self.tracker), ["none", "wandb"])
        labels = [(method.name, method.label) for method in self.methods]
        for label in labels:
            if labels.count(label) > 1:
                raise UserError(f"methods names {' '.join(label).strip()!r} twice; each may stand once in a run")


def run_config(config: DictConfig, conf: Path) -> RunConfig:
    """Check and type a composed configuration.

    Raises:
        UserError: any value that is not allowed, in one line.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    shard = _shard(plain["shard"])
    root = plain["data"].get("root")
    methods = tuple(_method(entry, config, conf) for entry in _listed(plain["methods"], "methods"))
    # only the methods that run belong to what was run
    identity = {key: value for key, value in plain.items() if key not in ("out", "method", "tracker")}
    identity["methods"] = [_identity(entry, config, conf) for entry in plain["methods"]]
    tune = None if plain["tune"] is None else TuneSettings.from_config(plain["tune"])
    if tune is not None:  # jobs that share a search share its folder
        identity["tune"] = {key: value for key, value in plain["tune"].items() if key != "job"}
    task = plain["task"]
    return RunConfig(
        model=_build(config.model, "model"),
        task_name=task["name"],
        datasets=tuple(_listed(task["datasets"], "task.datasets")),
        data=DataSettings(
            root=Path(root).expanduser() if root else None,
            limit=plain["limit"],
            seed=plain["seed"] if isinstance(plain["seed"], int) else 0,
            shard=shard,
            parameters=task.get("parameters") or {},
        ),
        methods=methods,
        repeats=plain["repeats"],
        warmup=plain["warmup"],
        max_new_tokens=plain["max_new_tokens"],
        seed=plain["seed"],
        fidelity=plain["fidelity"],
        scoring=plain["scoring"],
        threads=plain["threads"],
        tracker=plain["tracker"],
        out=Path(plain["out"]) if plain["out"] else _default_folder(identity),
        resolved=identity,
        attention_map=plain["attention_map"],
        tune=tune,
    )


def _default_folder(identity: dict[str, Any]) -> Path:
    """The same configuration always means the same folder: that is how an interrupted run is found again."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.\-]+", "_", f"{identity['model']['name']}-{identity['task']['name']}")
    return Path("results/runs") / f"{name}-{digest}"


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name}={value!r} must be a list with at least one entry, as in {name}=[baseline,lazyllm]")
    return value


def _shard(text: Any) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"shard={text} must be index/count with the index from 0 below the count, as in shard=0/4")
    return int(match[1]), int(match[2])


def _identity(entry: Any, config: DictConfig, conf: Path) -> Any:
    return OmegaConf.to_container(_method_node(entry, config, conf), resolve=True)


def _method(entry: Any, config: DictConfig, conf: Path) -> Method:
    return cast(Method, _build(_method_node(entry, config, conf), f"method {entry}"))


def _method_node(entry: Any, config: DictConfig, conf: Path) -> DictConfig:
    """A method by name, or by name with its own parameters: ``{method: lazyllm, pruning: {layers: [9]}}``."""
    overrides = dict(entry) if isinstance(entry, dict) else {"method": entry}
    name = str(overrides.pop("method", ""))
    if name not in config.method:
        raise unknown_name("method", name, [str(known) for known in config.method])
    node = OmegaConf.create(OmegaConf.to_container(config.method[name], resolve=True))
    pruning = overrides.get("pruning")
    if isinstance(pruning, str):  # a preset by its name
        presets = {path.stem: path for path in (conf / "pruning").glob("*.yaml")}
        if pruning not in presets:
            raise unknown_name("pruning", pruning, presets)
        node.pruning = OmegaConf.load(presets.pop(overrides.pop("pruning")))
    unknown = set(overrides) - set(node)
    if unknown:
        raise UserError(f"method {name} has no parameter {min(unknown)!r}; it has {', '.join(map(str, node))}")
    return cast(DictConfig, OmegaConf.merge(node, overrides))


def _build(node: DictConfig, what: str) -> Any:
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        raise UserError(f"{what}: {' '.join(str(cause).split())}") from error
