"""Settings that would do nothing in a run: each is named, none is passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazybench.methods import METHODS


def unused_settings(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """One line for each override of the command line that this run does not read.

    Args:
        overrides: ``"pruning.keep=[0.5]"``, as Hydra lists them.
        config: the composed configuration, as plain data.
    """
    given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    entries = config.get("methods")
    if not isinstance(entries, list):
        return []  # refused by what checks values
    entries = [entry if isinstance(entry, dict) else {"method": entry} for entry in entries]
    names = [str(entry.get("method")) for entry in entries]
    # a preset in an entry of methods replaces the run's pruning; keys of it go on top
    pruned = any(
        hasattr(METHODS.get(name), "pruning") and not isinstance(entry.get("pruning"), str) and "preset" not in entry
        for name, entry in zip(names, entries, strict=True)
    )
    lines = []
    for key in (key for key, value in given.items() if value != "null"):
        if key.partition(".")[0] == "pruning" and not pruned:
            lines.append(f"{key} does nothing: none of methods=[{','.join(names)}] prunes by it")
        elif key == "pruning.depths" and "pruning.layers" in given:
            lines.append(f"{key} does nothing beside pruning.layers, which say the same")
    return lines
