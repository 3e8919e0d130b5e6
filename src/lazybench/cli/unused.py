"""Settings that would do nothing in a run: each is named, none is passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def unused_settings(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """One line for each override of the command line that this run does not read.

    Args:
        overrides: ``"method.random_drop.keep=0.5"``, as Hydra lists them.
        config: the composed configuration, as plain data.
    """
    given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    given = {key.partition("@")[0]: value for key, value in given.items() if value != "null"}
    if not isinstance(config.get("methods"), list) or not isinstance(config.get("method"), dict):
        return []  # refused by what checks values
    by_pruning = {name for name, node in config["method"].items() if isinstance(node, dict) and "pruning" in node}
    entries = [entry if isinstance(entry, dict) else {"method": entry} for entry in config["methods"]]
    names = [str(entry.get("method")) for entry in entries]
    # a preset by its name, in an entry of methods, replaces the run's pruning; keys of it go on top
    pruned = [
        name
        for name, entry in zip(names, entries, strict=True)
        if name in by_pruning and not isinstance(entry.get("pruning"), str)
    ]
    lines = []
    for key in given:
        group, *rest = key.split(".")
        if group == "method" and rest and rest[0] not in names:
            lines.append(f"{key} does nothing: {rest[0]} is not among methods=[{','.join(names)}]")
        elif group == "pruning" and not pruned:
            lines.append(f"{key} does nothing: none of methods=[{','.join(names)}] prunes by it")
        elif key in ("model.hub_id", "model.revision") and "model.path" in given:
            lines.append(f"{key} does nothing: model.path is loaded in its place")
        elif key == "model.revision" and not config["model"]["hub_id"]:
            lines.append(f"{key} does nothing: the model is not from the hub; name it by model=OWNER/NAME")
    if config.get("timing") is False:
        if config.get("launches") is True:
            lines.append("launches=true does nothing beside timing=false: launches are counted in timed runs")
        if given.get("warmup", "0") != "0":
            lines.append("warmup does nothing beside timing=false: no run is timed")
    if {"pruning.layers", "pruning.depths"} <= given.keys():
        lines.append("pruning.depths does nothing beside pruning.layers, which say the same")
    return lines
