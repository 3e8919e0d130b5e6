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
    entries = [entry if isinstance(entry, dict) else {"method": entry} for entry in config["methods"]]
    names = [str(entry.get("method")) for entry in entries]
    nodes = config["method"]
    # a preset by its name, in an entry of methods, replaces the run's pruning; keys of it go on top
    pruned = any(
        isinstance(nodes.get(name), dict) and "pruning" in nodes[name] and not isinstance(entry.get("pruning"), str)
        for name, entry in zip(names, entries, strict=True)
    )
    untimed, by_path = config.get("timing") is False, "model.path" in given
    from_hub = isinstance(config.get("model"), dict) and config["model"].get("hub_id") and not by_path
    listed = f"methods=[{','.join(names)}]"
    rules = {
        "model.hub_id": (by_path, "model.path is loaded in its place"),
        "model.revision": (not from_hub, "no model of the hub is loaded; give model=OWNER/NAME and no model.path"),
        "warmup": (untimed and given.get("warmup") != "0", "beside timing=false no run is timed"),
    }
    for key in given:
        group, *rest = key.split(".")
        if group == "method" and rest:
            rules[key] = (rest[0] not in names, f"{rest[0]} is not among {listed}")
        elif group == "pruning":
            rules[key] = (not pruned, f"none of {listed} prunes by it")
    lines = [f"{key} does nothing: {rules[key][1]}" for key in given if key in rules and rules[key][0]]
    if untimed and config.get("launches") is True:
        lines.append("launches=true does nothing beside timing=false: launches are counted in timed runs")
    if {"pruning.layers", "pruning.depths"} <= given.keys():
        lines.append("pruning.depths does nothing beside pruning.layers, which say the same")
    return lines
