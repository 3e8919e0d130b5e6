"""The data that a run measured, where it is at hand and still the same."""

from __future__ import annotations

from pathlib import Path

from lazybench.errors import UserError
from lazybench.store.reading import Run
from lazybench.tasks import build_task
from lazybench.tasks.base import DataSettings, Task


def measured_task(run: Run, name: str, data_root: Path | None, shard: tuple[int, int] = (0, 1)) -> Task:
    """One of the run's datasets.

    Args:
        data_root: where its files lie; None: where the run had them.

    Raises:
        UserError: it is not at hand, or what is at hand is not what was measured.
    """
    root = data_root or (run.config.get("data") or {}).get("root")
    settings = DataSettings(
        root=Path(root) if root else None,
        limit=run.config.get("limit"),
        seed=run.config.get("seed") or 0,
        shard=shard,
        parameters=run.config["task"].get("parameters") or {},
    )
    task = build_task(name, settings)
    noted = (run.provenance.get("tasks") or {}).get(name, {}).get("fingerprint")
    if noted != task.fingerprint:
        raise UserError(f"the data at hand ({task.source}, {task.fingerprint}) is not what was measured ({noted})")
    return task
