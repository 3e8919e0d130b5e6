"""Reading what runs left, run folders and campaign files alike: each gives ``Run`` objects.

A campaign is one file of many runs' records (``NAME.parquet``, a row a record) with their configurations and provenance
beside it (``NAME.json``); ``run/campaign.py`` writes both.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml

from lazybench.errors import UserError
from lazybench.models.foreign import read_json, yaml_tree
from lazybench.run.record import Record, RecordKey, from_line


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _parts(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(part, dict) for part in value.values()))


def _is_shard(value: Any) -> bool:
    part = re.fullmatch(r"(\d{1,4})/(\d{1,4})", str(value or "0/1"))
    return part is not None and int(part[1]) < int(part[2])


# what is read of a run's two files, and as what: a type, or a function that judges; a stranger's may hold anything
CONFIG: dict[str, Any] = {
    **dict.fromkeys(("", "model", "task"), dict),
    "task.datasets": _names,
    "shard": _is_shard,
    "methods": list | None,
    **dict.fromkeys(("task.parameters", "data"), dict | None),
    "data.root": str | None,
    **dict.fromkeys(("limit", "seed", "repeats", "max_new_tokens"), int | None),
}
PROVENANCE: dict[str, Any] = {
    **dict.fromkeys(("model", "hardware", "libraries"), dict | None),
    "tasks": _parts,
    "hardware.gpus": list | None,
    "model.layers": int | None,
}
JSON_TEXT = ("params", "details")  # columns of a campaign that hold JSON


@dataclass(frozen=True)
class Run:
    """What one run folder holds, or one run of a campaign file."""

    path: Path  # the folder; of a campaign's run the file and the folder's name in it
    config: dict[str, Any]
    provenance: dict[str, Any]
    records: list[Record]
    finished: bool  # the folder has its ``done`` marker

    @property
    def shard(self) -> str:
        """``"0/4"``: which part of the datasets."""
        return str(self.config.get("shard") or "0/1")

    @property
    def started(self) -> tuple[str, str]:
        """Rises with the time of the run."""
        return str(self.provenance.get("started_at") or ""), self.path.name


def missing_shards(shards: Sequence[str]) -> tuple[str, ...]:
    """The shards that none of these covers, in a division as fine as they need.

    >>> missing_shards(["0/2", "1/4"])
    ('3/4',)
    """
    parts = [(int(index), int(count)) for index, _, count in (shard.partition("/") for shard in shards)]
    finest = math.lcm(*(count for _, count in parts))
    return tuple(f"{n}/{finest}" for n in range(finest) if all(n % count != index for index, count in parts))


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

    Of two lines with one key the later counts, in the place of the earlier. A torn last line (a run that is going on,
    or was killed) is passed over: what it was to hold will be measured again.

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
        config = yaml_tree((folder / "config.yaml").read_text(encoding="utf-8"))
        provenance = read_json((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no whole run folder: {' '.join(str(error).split())}") from error
    for name, content, kinds in (("config.yaml", config, CONFIG), ("provenance.json", provenance, PROVENANCE)):
        if (path := _misfit(content, kinds)) is not None:
            raise UserError(f"{folder} is no whole run folder: {name} is not what a run wrote, at {path or 'its top'}")
    records = read_records(folder / "samples.jsonl")
    return Run(folder, config, provenance, records, (folder / "done").exists())


def read_campaign(path: Path) -> list[Run]:
    """The runs of a campaign file.

    Raises:
        UserError: it or the file beside it is missing, cannot be read, or is not what ``pack`` wrote.
    """
    from pyarrow import ArrowException, parquet

    try:
        known = read_json(path.with_suffix(".json").read_text(encoding="utf-8"))["runs"]
        names = [field.name for field in fields(Record)]
        rows = parquet.read_table(path, columns=["run", *names]).to_pylist()
        records: list[dict[RecordKey, Record]] = [{} for _ in known]
        for row in rows:
            row.update({name: row[name] and read_json(row[name]) for name in JSON_TEXT})
            of_run = records[row.pop("run")]
            record = from_line(json.dumps(row).encode())
            of_run[record.key] = record  # as in samples.jsonl: of two with one key the later counts
    except (OSError, ValueError, KeyError, TypeError, IndexError, ArrowException) as error:
        raise UserError(f"{path} is no campaign file: {' '.join(str(error).split())}") from error
    for run in known:
        for name, kinds in (("config", CONFIG), ("provenance", PROVENANCE)):
            if not isinstance(run, dict) or (at := _misfit(run.get(name), kinds)) is not None:
                raise UserError(f"{path.with_suffix('.json')} is not what pack wrote, at {name} {at}")
    return [
        Run(path / str(run.get("name")), run["config"], run["provenance"], list(one.values()), finished=True)
        for run, one in zip(known, records, strict=True)
    ]


def find_runs(*roots: Path, may_lack: bool = False) -> list[Path]:
    """The run folders and campaign files at or below ``roots``, by name.

    Args:
        may_lack: nothing found is no error.

    Raises:
        UserError: there is none.
    """
    found: set[Path] = set()
    for root in map(Path, roots):
        campaigns = [root] if root.suffix == ".parquet" else root.rglob("*.parquet")
        found.update(path for path in campaigns if path == root or path.with_suffix(".json").exists())
        found.update(path.parent for path in root.rglob("samples.jsonl"))
    if not found and not may_lack:
        raise UserError(
            f"no run in {', '.join(map(str, roots))}: no folder at or below holds a samples.jsonl or a campaign"
        )
    return sorted(found)


def read_runs(path: Path) -> list[Run]:
    """A run folder's run, or those of a campaign file.

    Raises:
        UserError: it cannot be read.
    """
    return read_campaign(path) if path.suffix == ".parquet" and not path.is_dir() else [read_run(path)]


def _misfit(content: Any, kinds: dict[str, Any]) -> str | None:
    """The first place that holds something else than a run writes there."""
    if not isinstance(content, dict):
        return ""
    for path, kind in kinds.items():
        found: Any = content
        for key in path.split(".") if path else ():
            found = (found or {}).get(key)
        if not (kind(found) if isinstance(kind, FunctionType) else isinstance(found, kind)):
            return path
    return None
