"""One run as typed dataclasses, built from plain data: where a configuration ends and measuring begins.

Every value that can be judged without torch is judged here, before torch is imported: a bad one is answered at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from lazybench import methods
from lazybench.errors import UserError, unknown_name
from lazybench.methods import Method
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PAPER, PruningSchedule
from lazybench.pruning.settings import Count, Number, build, typed
from lazybench.tasks import check_name
from lazybench.tasks.base import DataSettings

PARTS = ("model", "data", "task", "pruning")  # keys with keys of their own
OTHERS = ("methods", "limit", "shard", "tag", "out")  # keys that RunConfig holds in another form


@dataclass(frozen=True)
class RunConfig:
    """One run: a model, datasets, methods, and how they are measured."""

    model: ModelSpec
    task_name: str  # "qasper", or a category's name
    datasets: tuple[str, ...]
    data: DataSettings
    methods: tuple[Method, ...]
    repeats: Count
    warmup: Number
    max_new_tokens: Count | None
    seed: Number
    fidelity: bool
    scoring: bool
    threads: Count | None
    tracker: Literal["none", "wandb"]
    out: Path
    resolved: Mapping[str, Any]  # the configuration as plain data, for config.yaml
    timing: bool = True  # false: fidelity and score alone, without a clock
    attention_map: bool = False  # keep figure 2's measurement of the first prompt
    plugins: tuple[str, ...] = ()  # modules of the user's own, imported before
    engine: Literal["hf", "vllm"] = "hf"  # who generates: the model itself, or vLLM with the same weights

    def __post_init__(self) -> None:
        for name, hint in TYPES.items():
            object.__setattr__(self, name, typed(hint, getattr(self, name), name))
        if not self.timing and not self.fidelity:
            raise UserError("timing=false and fidelity=false leave nothing to measure; set one of them to true")
        if self.engine == "vllm" and self.fidelity:
            raise UserError("engine=vllm measures times and scores; a method's fidelity is engine=hf's: fidelity=false")
        for method in self.methods:
            if self.methods.count(method) > 1:
                twice = f"{method.name} {method.label}".strip()
                raise UserError(f"methods names {twice!r} twice; each may stand once in a run")


BUILT = ("model", "task_name", "datasets", "data", "methods", "out", "resolved")  # of several keys, or of other forms
TYPES = {name: hint for name, hint in get_type_hints(RunConfig, include_extras=True).items() if name not in BUILT}
KEYS = {*TYPES, *PARTS, *OTHERS}


def build_config(plain: Mapping[str, Any], sweep: bool = False) -> RunConfig:
    """Check and type a whole configuration.

    Args:
        plain: every key that a run has; presets and draft models as their fields, not by name.
        sweep: this is one of several jobs, so ``tag`` names a folder of folders.

    Raises:
        UserError: any value that is not allowed, in one line.
    """
    if unknown := plain.keys() - KEYS:
        raise unknown_name("key", min(map(str, unknown)), KEYS)
    if missing := KEYS - plain.keys():
        raise UserError(f"{min(missing)} was taken away; every run has it: leave out ~{min(missing)}")
    for name in PARTS:
        typed(Mapping[str, Any], plain[name], name)
    chosen = _methods(plain)
    identity = _identity(plain, chosen)
    task = build(_Task, plain["task"], "task")
    return RunConfig(
        model=build(ModelSpec, plain["model"], "model"),
        task_name=task.name,
        datasets=task.datasets,
        data=DataSettings(
            root=build(_Data, plain["data"], "data").root,
            limit=typed(Count | None, plain["limit"], "limit"),
            seed=typed(Number, plain["seed"], "seed"),
            shard=_shard(plain["shard"]),
            parameters=_parameters(task),
        ),
        methods=chosen,
        out=_folder(plain, identity, sweep),
        resolved=identity,
        **{name: plain[name] for name in TYPES},
    )


@dataclass(frozen=True)
class _Data:
    root: Path | None = None


@dataclass(frozen=True)
class _Task:
    name: str
    datasets: tuple[str, ...]
    parameters: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError("task.datasets=[] must be a list with at least one entry, as in 'task.datasets=[qasper]'")
        for name in self.datasets:
            check_name(name)


def _parameters(task: _Task) -> Mapping[str, Any]:
    """The task's own, with the one that is a path as the others are."""
    parameters = dict(task.parameters or {})
    if parameters.get("include_path") is not None:
        parameters["include_path"] = str(typed(Path, parameters["include_path"], "task.parameters.include_path"))
    return parameters


def _identity(plain: Mapping[str, Any], methods: Sequence[Method]) -> dict[str, Any]:
    """What was asked, as plain data: of the methods those that run, nothing of where it goes."""
    no_part = ("out", "tag", "tracker")
    identity = {key: value for key, value in plain.items() if key not in no_part}
    for key, default in (("plugins", []), ("engine", "hf")):  # a run of before they were there keeps its folder
        if identity[key] == default:
            del identity[key]
    identity["methods"] = [{"method": method.name, **method.params} for method in methods]
    return identity


def _folder(plain: Mapping[str, Any], identity: Mapping[str, Any], sweep: bool) -> Path:
    """Where the run goes: a configuration always means the same folder, so an interrupted run is found."""
    tag, out = typed(str | None, plain["tag"], "tag"), typed(Path | None, plain["out"], "out")
    if out is not None:
        if tag is not None:
            raise UserError(f"tag={tag} and out={out} both name the run's folder; give one")
        return cast(Path, out)
    known = json.loads(json.dumps(identity, default=str))  # keys as text: others have no order among them
    del known["limit"]  # a higher one goes on in the same folder
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
    names = (typed(Mapping[str, Any], plain[part], part).get("name") for part in ("model", "task"))
    name = re.sub(r"[^\w.\-]+", "_", "-".join(map(str, names)))
    runs = Path("results/runs")
    if tag is None:
        return runs / f"{name}-{digest}"
    if re.fullmatch(r"\w[\w.\-]*", tag) is None:
        raise UserError(f"tag={tag} must be letters, digits, '.', '_' or '-': it names a folder of {runs}")
    several = sweep or _shard(plain["shard"])[1] > 1
    return runs / tag / f"{name}-{digest}" if several else runs / tag


def _shard(text: Any) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"shard={text} must be index/count with the index from 0 below the count, as in shard=0/4")
    return int(match[1]), int(match[2])


def _methods(plain: Mapping[str, Any]) -> tuple[Method, ...]:
    entries = plain["methods"]
    if not isinstance(entries, list) or not entries:
        raise UserError(f"methods={entries!r} must be a list with at least one entry, as in 'methods=[baseline,taper]'")
    schedule = build(PruningSchedule, plain["pruning"], "pruning", PAPER)
    return tuple(_method(entry, schedule) for entry in entries)


def _method(entry: Any, schedule: PruningSchedule) -> Method:
    """A method by name, or by name with its own parameters: ``{method: lazyllm, pruning: {layers: [9]}}``."""
    own = dict(entry) if isinstance(entry, Mapping) else {"method": entry}
    name = own.pop("method", None)
    if not isinstance(name, str) or not name:
        raise UserError(f"methods={entry} names no method; its parameters stand beside it: {{method: lazyllm, ...}}")
    kind: Any = methods.find(name)
    return methods.build(name, own, kind(pruning=schedule) if hasattr(kind, "pruning") else None)
