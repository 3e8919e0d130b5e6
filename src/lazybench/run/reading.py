"""Reading what runs left: one file, one folder, or a results folder with many runs and shards."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lazybench.errors import UserError
from lazybench.run.record import Record, RecordKey, from_line

LIBRARIES = ("python", "torch", "transformers", "tokenizers", "accelerate", "bitsandbytes")  # that numbers depend on
HARDWARE = ("platform", "cpu", "cpus_usable", "torch_threads", "gpus", "cuda", "driver")
# what is read of a run's two files, and as what; a stranger's may hold anything
CONFIG: dict[str, Any] = {
    **dict.fromkeys(("model", "task"), dict),
    "task.datasets": list,
    "methods": list | None,
    **dict.fromkeys(("task.parameters", "data"), dict | None),
    **dict.fromkeys(("limit", "seed", "repeats", "max_new_tokens"), int | None),
}
PROVENANCE: dict[str, Any] = dict.fromkeys(("model", "tasks", "methods", "hardware", "libraries"), dict | None)


@dataclass(frozen=True)
class Run:
    """What one run folder holds, or the shards of one run together."""

    folders: tuple[Path, ...]
    config: dict[str, Any]
    provenance: dict[str, Any]  # of the first folder
    records: list[Record]
    shards: tuple[str, ...]  # "0/4", "1/4", ...
    finished: bool  # every folder has its ``done`` marker

    @property
    def model(self) -> str:
        """The model's name as its records have it; as the configuration has it, while there is none."""
        return self.records[0].model if self.records else str(self.config["model"]["name"])

    @property
    def missing_shards(self) -> tuple[str, ...]:
        """The shards of this run whose folders are not here."""
        return missing_shards(self.shards)

    @property
    def but_for_shards(self) -> dict[str, Any]:
        """The configuration that all shards of a run share."""
        return {key: value for key, value in self.config.items() if key != "shard"}


def missing_shards(shards: Sequence[str]) -> tuple[str, ...]:
    """The shards that none of these covers, in a division as fine as they need.

    >>> missing_shards(["0/2", "1/4"])
    ('3/4',)
    """
    parts = [(int(index), int(count)) for index, _, count in (shard.partition("/") for shard in shards)]
    finest = math.lcm(*(count for _, count in parts))
    return tuple(f"{n}/{finest}" for n in range(finest) if all(n % count != index for index, count in parts))


def decisive_facts(provenance: dict[str, Any]) -> dict[str, Any]:
    """What a provenance says that must be equal before numbers of two runs are put together; the data is told apart
    by task: ``provenance["tasks"]``.
    """
    libraries, hardware = (provenance.get(name) or {} for name in ("libraries", "hardware"))
    return {
        "model": provenance.get("model"),
        "hardware": {name: hardware[name] for name in HARDWARE if name in hardware},
        "libraries": {name: libraries[name] for name in LIBRARIES if name in libraries},
    }


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """``{"model": {"dtype": "auto"}}`` as ``{"model.dtype": "auto"}``."""
    if isinstance(value, dict) and value:
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    return {key: found for name, item in items for key, found in flatten(item, name).items()}


def read_records(path: Path) -> list[Record]:
    """The records of a samples.jsonl, in the order they were measured.

    Of two lines with one key the later supersedes the earlier, in its place: times are written at once, and once more
    together with the fidelity. A torn last line (a run that is going on, or was killed) is passed over: what it was to
    hold will be measured again.

    Raises:
        UserError: no such file; a line that is no record.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    records: dict[RecordKey, Record] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = from_line(line)
        except ValueError as error:
            if number == len(lines):
                break
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} line {number} is no record ({reason}); run the same command again to measure its sample anew"
            ) from error
        records[record.key] = record
    return list(records.values())


def read_run(folder: Path) -> Run:
    """One run folder.

    Raises:
        UserError: a file of it is missing or cannot be read.
    """
    folder = Path(folder)
    if not (folder / "samples.jsonl").is_file():
        raise UserError(f"{folder} is no run folder: it holds no samples.jsonl")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no whole run folder: {' '.join(str(error).split())}") from error
    for name, content, kinds in (("config.yaml", config, CONFIG), ("provenance.json", provenance, PROVENANCE)):
        for path, kind in {"": dict, **kinds}.items():
            found: Any = content
            for key in path.split(".") if path else ():
                found = found.get(key)
            if not isinstance(found, kind):
                raise UserError(
                    f"{folder} is no whole run folder: {name} is not what a run wrote, at {path or 'its top'}"
                )
    return Run(
        folders=(folder,),
        config=config,
        provenance=provenance,
        records=read_records(folder / "samples.jsonl"),
        shards=(str(config.get("shard", "0/1")),),
        finished=(folder / "done").exists(),
    )


def find_runs(*roots: Path, may_lack: bool = False) -> list[Path]:
    """The run folders at or below ``roots``, by name.

    Raises:
        UserError: there is none, unless they may lack one.
    """
    found = sorted({path.parent for root in roots for path in Path(root).rglob("samples.jsonl")})
    if not found and not may_lack:
        raise UserError(f"no run in {', '.join(map(str, roots))}: no folder at or below holds a samples.jsonl")
    return found


def merge_shards(runs: list[Run]) -> list[Run]:
    """Concatenate the runs whose configurations differ in ``shard`` alone, shard by shard; not those that other code,
    hardware, weights or data measured.

    Raises:
        UserError: two of them hold the same record, so that it would count twice.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        facts = {**decisive_facts(run.provenance), "tasks": run.provenance.get("tasks")}
        groups.setdefault(json.dumps([run.but_for_shards, facts], sort_keys=True, default=str), []).append(run)
    return [_merged(group) for group in groups.values()]


def _merged(runs: list[Run]) -> Run:
    runs = sorted(runs, key=lambda run: (int(run.shards[0].split("/")[0]), run.folders))
    home: dict[RecordKey, Path] = {}
    for run in runs:
        for record in run.records:
            if record.key in home:
                raise UserError(
                    f"{home[record.key]} and {run.folders[0]} both hold {_name(record)} of one configuration; "
                    "leave one of the folders out"
                )
            home[record.key] = run.folders[0]
    return replace(
        runs[0],
        folders=tuple(run.folders[0] for run in runs),
        records=[record for run in runs for record in run.records],
        shards=tuple(run.shards[0] for run in runs),
        finished=all(run.finished for run in runs),
    )


def _name(record: Record) -> str:
    method = f"{record.method} {record.label}".strip()
    return f"{record.model} {record.task} {method} sample {record.sample_id} repeat {record.repeat}"
