"""results/runs/index.csv: which runs there are, for someone who looks for one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lazybench.store.files import write_atomically

RUNS = Path("results/runs")
COLUMNS = (
    "folder",
    "model",
    "task",
    "methods",
    "limit",
    "seed",
    "records",
    "failed",
    "finished",
    "started_at",
    "commit",
)


def write_index(run: Path) -> None:
    """List every run beneath results/runs, from their own files: two jobs that end together agree on the list.

    Args:
        run: the folder that was added; one outside results/runs changes no list.
    """
    if RUNS.resolve() not in run.resolve().parents:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(_rows(), key=lambda row: str(row["started_at"])))
    write_atomically(RUNS / "index.csv", text.getvalue().encode())


def _rows() -> Iterator[dict[str, Any]]:
    for config_path in RUNS.rglob("config.yaml"):
        folder = config_path.parent
        try:
            config = yaml.load(config_path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
            records = (folder / "samples.jsonl").read_bytes().splitlines()
            yield {
                "folder": folder.relative_to(RUNS),
                "model": config["model"]["name"],
                "task": config["task"]["name"],
                "methods": " ".join(dict.fromkeys(_name(method) for method in config["methods"])),
                "limit": config["limit"],
                "seed": config["seed"],
                "records": len(records),
                "failed": sum(json.loads(line)["error"] is not None for line in records),
                "finished": (folder / "done").exists(),
                "started_at": facts.get("started_at"),
                "commit": (facts.get("commit") or "")[:12],
            }
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            continue  # a run that is being started, or a folder of something else: no reason to lose the list


def _name(method: Any) -> str:
    """``{_target_: lazybench.methods.random_drop.RandomDrop}`` as ``random_drop``; a name as it is."""
    return str(method["_target_"]).split(".")[-2] if isinstance(method, dict) else str(method)
