"""Which records share a row: the settings that numbers depend on, and the words that tell rows apart.

Rows stand apart by the model's name, its precision and weights, the task's parameters and data, and the limits on
tokens. Code, hardware, libraries and the seed split no row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from lazybench.run.reading import Run, flatten

Part = tuple[int, str, str]  # a run's number, a model, a category
OF_MODEL = ("dtype", "attention", "quantization", "chat_format", "prompt_limit_tokens", "revision", "fingerprint")


def settings(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run and each of its categories the words that tell its rows from others: ``length=900``."""
    tasks: dict[Part, set[str]] = defaultdict(set)
    prints: dict[tuple[str, str, str], set[Any]] = defaultdict(set)
    for place, run in enumerate(runs):
        for record in run.records:
            tasks[place, record.model, record.category].add(record.task)
            prints[record.model, record.category, record.task].add(_fingerprint(run, record.task))

    def of_task(part: Part) -> dict[str, Any]:
        place, model, category = part
        run, several = runs[place], [name for name in sorted(tasks[part]) if len(prints[model, category, name]) > 1]
        return {
            **flatten(run.config["task"].get("parameters") or {}),
            "max_new_tokens": run.config.get("max_new_tokens"),
            # last: other parameters of a task make other data
            "data": ",".join(str(_fingerprint(run, name))[:7] for name in several) or None,
        }

    words: dict[Part, list[str]] = defaultdict(list)
    for together, told in (
        (lambda part: part[1:], of_task),
        (lambda part: part[1], lambda part: _of_model(runs[part[0]])),
    ):
        for _, parts in groupby(sorted(tasks, key=together), key=together):
            alike = list(parts)
            for part, label in zip(alike, labels([told(part) for part in alike]), strict=True):
                words[part] += [label] if label else []
    return [{part[2]: " ".join(words[part]) for part in tasks if part[0] == place} for place in range(len(runs))]


def labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """As few ``name=value`` as tell the different ones apart, for each.

    >>> labels([{"task.length": 300, "depth": 0}, {"task.length": 900, "depth": 0}])
    ['length=300', 'length=900']
    """
    shown: list[str] = []
    for name in dict.fromkeys(name for one in settings for name in one):
        if _kinds(settings, [*shown, name]) > _kinds(settings, shown):
            shown.append(name)
    return [" ".join(f"{name.rpartition('.')[2]}={_value(one.get(name))}" for name in shown) for one in settings]


def _of_model(run: Run) -> dict[str, Any]:
    """What was loaded, else what was asked for."""
    known = {**run.config["model"], **(run.provenance.get("model") or {})}
    weights = known.get("sha256") or known.get("fingerprint")
    return {name: known.get(name) for name in OF_MODEL} | {"fingerprint": weights}


def _fingerprint(run: Run, task: str) -> Any:
    return ((run.provenance.get("tasks") or {}).get(task) or {}).get("fingerprint")


def _kinds(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    return len({json.dumps([one.get(name) for name in names], default=str) for one in settings})


def _value(value: Any) -> str:
    if value is None:
        return "default"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text[:7] if len(text) >= 40 else text  # a digest: as git shortens it
