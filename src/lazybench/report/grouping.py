"""Which runs' numbers may stand in one row, and the words that tell the others apart.

Two runs belong together when everything that a number depends on is equal: model, task parameters, data, code,
libraries, hardware and every setting but those that only say how much is measured. What differs becomes a label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lazybench.errors import UserError
from lazybench.run.reading import Run, decisive_facts, flatten

# how much is measured, where it is written, or (methods) what the records name themselves
AMOUNTS = (
    *("limit", "repeats", "warmup", "timing", "fidelity", "scoring"),
    *("attention_map", "experiment", "size", "tracker", "tune", "tag"),
)
NO_SETTINGS = (*AMOUNTS, "methods", "pruning", "shard", "out", "data.root", "model.path", "task.name", "task.datasets")
OF_THE_TASK = ("task.", "data")
ORDER = (
    "task.",
    "data",
    "max_new_tokens",
    "seed",
    "threads",
    "",
    "model.",
    "loaded.",
    "hardware.",
    "libraries.",
)
LONGEST_VALUE = 28
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """What a run's rows are called: runs with equal groups stand in the same rows."""

    model: str  # with the settings that differ: "smollm2 dtype=bfloat16"
    setting: str = ""  # parameters of the task, or its data, where they differ: "length=900"

    @property
    def label(self) -> str:
        """Both, for a figure's panel or a column."""
        return f"{self.model} {self.setting}".strip()


def groups_of(runs: Sequence[Run], joined: Sequence[str] = ()) -> tuple[list[Group], list[str]]:
    """The group of each run, and what else differs between groups, a sentence each.

    Args:
        joined: names of settings that may differ within a group: ``code``, ``hardware``, ``libraries.torch``, ...

    Raises:
        UserError: two runs hold the same record and nothing tells them apart; no run has a setting of a joined name.
    """
    notes: list[str] = []
    settings = [settings_of(run) for run in runs]
    for name in joined:
        notes += _differing(settings, name)
    settings = [_without(setting, joined) for setting in settings]
    models = [run.model for run in runs]
    for model in dict.fromkeys(models):
        places = [place for place, run in enumerate(runs) if run.model == model]
        found, also = labels([_without(settings[place], OF_THE_TASK) for place in places])
        for place, label in zip(places, found, strict=True):
            models[place] = f"{model} {label}".strip()
        notes += [f"Runs of {model} differ in {also} too."] if also else []
    names = [""] * len(runs)
    for places in _sharing_a_category(runs, models):
        data = _data([runs[place] for place in places])
        own = [
            {**_only(settings[place], OF_THE_TASK), "data": content}
            for place, content in zip(places, data, strict=True)
        ]
        found, also = labels(own)
        for place, label in zip(places, found, strict=True):
            names[place] = label
        notes += [f"Runs of {runs[places[0]].config['task']['name']} differ in {also} too."] if also else []
    groups = [Group(model, name) for model, name in zip(models, names, strict=True)]
    return _told_apart(runs, groups), notes


def labels(settings: Sequence[Settings]) -> tuple[list[str], str]:
    """As few ``name=value`` as tell the different ones apart, for each; and the names of what else differs.

    >>> labels([{"task.length": 300, "seed": 0}, {"task.length": 900, "seed": 0}])
    (['length=300', 'length=900'], '')
    """
    names = sorted({name for one in settings for name in one}, key=_rank)
    differing = [name for name in names if len({_text(one.get(name)) for one in settings}) > 1]
    kinds = len({tuple(_text(one.get(name)) for name in differing) for one in settings})
    shown: list[str] = []
    for name in differing:
        if _kinds(settings, [*shown, name]) > _kinds(settings, shown):
            shown.append(name)
        if _kinds(settings, shown) == kinds:
            break
    short = {name: name.rsplit(".", 1)[-1] for name in shown}
    if len(set(short.values())) < len(short):
        short = {name: name for name in shown}
    found = [" ".join(f"{short[name]}={_value(one.get(name))}" for name in shown) for one in settings]
    return found, ", ".join(name for name in differing if name not in shown)


def _differing(settings: Sequence[Settings], joined: str) -> list[str]:
    """What stands in one row all the same, as ``--join`` says it may."""
    named = [_only(setting, [joined]) for setting in settings]
    if not any(named):
        known = sorted({name.partition(".")[0] for setting in settings for name in setting})
        raise UserError(f"--join {joined}: no run says this; what runs are told apart by: {', '.join(known)}")
    found = sorted({name for one in named for name in one if len({_text(one.get(name)) for one in named}) > 1})
    return [f"Runs that differ in {', '.join(found)} stand in the same rows (--join {joined})."] if found else []


def settings_of(run: Run) -> dict[str, Any]:
    """Everything that a run's numbers depend on, by name; not its methods, which the records name."""
    facts = decisive_facts(run.provenance)
    found = {**_without(flatten(run.config), NO_SETTINGS), **flatten({"loaded": facts.pop("model"), **facts})}
    return {name: value for name, value in found.items() if value not in ({}, [], None)}  # not set is not there


def _data(runs: Sequence[Run]) -> list[str]:
    """For each run the name of its data: equal where no task of two runs has different fingerprints."""
    prints = [
        {name: (facts or {}).get("fingerprint") for name, facts in (run.provenance.get("tasks") or {}).items()}
        for run in runs
    ]
    found, sets = _compatible(prints)
    roots = [PurePath(str((run.config.get("data") or {}).get("root") or "")).name for run in runs]
    pairs = set(zip(found, roots, strict=True))
    if len(pairs) == len(sets) == len(set(roots)):  # each has a folder of its own name
        return roots
    return [_digest(sets[number]) for number in found]


def _compatible(prints: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
    """A number for each of ``prints``, equal where no name in two of them has different values; and what each holds."""
    sets: list[dict[str, Any]] = []
    found = []
    for one in prints:
        fitting = [
            number
            for number, known in enumerate(sets)
            if all(known.get(name, content) == content for name, content in one.items())
        ]
        if not fitting:
            sets.append({})
        found.append(fitting[0] if fitting else len(sets) - 1)
        sets[found[-1]].update(one)
    return found, sets


def _sharing_a_category(runs: Sequence[Run], models: Sequence[str]) -> list[list[int]]:
    """Places of runs that are connected by a model and a category (or a task) that they have in common."""
    parts: list[tuple[set[tuple[str, str]], list[int]]] = []
    for place, (run, model) in enumerate(zip(runs, models, strict=True)):
        mine = {(model, record.category) for record in run.records} or {(model, f"run {place}")}
        touching = [part for part in parts if part[0] & mine]
        parts = [part for part in parts if not part[0] & mine]
        parts.append(
            (mine.union(*(part[0] for part in touching)), [*(old for part in touching for old in part[1]), place])
        )
    return [sorted(part[1]) for part in parts]


def _told_apart(runs: Sequence[Run], groups: list[Group]) -> list[Group]:
    """The groups, those split whose runs hold the same records: by how much was measured, else by their folders.

    Baselines may stand in several runs of a group: each method is paired with its own run's.
    """
    groups = list(groups)
    for group in dict.fromkeys(groups):
        places = [place for place, one in enumerate(groups) if one == group]
        keys = [{record.key for record in runs[place].records if record.method != "baseline"} for place in places]
        if sum(map(len, keys)) == len(set().union(*keys)):
            continue
        folders = [runs[place].folders[0] for place in places]
        amounts = [_only(flatten(runs[place].config), AMOUNTS) for place in places]
        found, _ = labels(amounts)
        if len(set(found)) < len(places):
            found, _ = labels([{"run": folder.name} for folder in folders])
        if len(set(found)) < len(places):
            raise UserError(
                f"{' and '.join(map(str, folders))} hold the same records and nothing tells them apart; "
                "leave out all but one, or rename a folder"
            )
        for place, label in zip(places, found, strict=True):
            groups[place] = Group(group.model, f"{group.setting} {label}".strip())
    return groups


def _rank(name: str) -> tuple[int, str]:
    places = [place for place, prefix in enumerate(ORDER) if prefix and name.startswith(prefix)]
    return (places[0] if places else ORDER.index(""), name)


def _kinds(settings: Sequence[Settings], names: Sequence[str]) -> int:
    return len({tuple(_text(one.get(name)) for name in names) for one in settings})


def _without(settings: Settings, prefixes: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not _starts(name, prefixes)}


def _only(settings: Settings, prefixes: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if _starts(name, prefixes)}


def _starts(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith((prefix.rstrip(".") + ".", prefix + "[")) for prefix in prefixes)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _value(value: Any) -> str:
    if value is None:
        return "default"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST_VALUE else _digest(value)


def _digest(value: Any) -> str:
    text = str(value)
    if len(text) >= 40 and all(character in "0123456789abcdef" for character in text):
        return text[:7]  # a digest already: as git shortens it
    return hashlib.sha256(_text(value).encode()).hexdigest()[:7]
