"""Presets that ``lazybench calibrate`` found: ``preset=FILE.yaml@2x``, or ``preset=NAME@2x`` of the package's own.

A preset stands for parameters and leaves no trace: a method and its record hold what the file says, not where it lay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lazybench.errors import UserError, shown, unknown_name
from lazybench.models.foreign import yaml_tree
from lazybench.pruning.settings import path_of

FOLDER = Path(__file__).parent / "calibrated"
LARGEST = 1_000_000  # bytes; a file of three presets has 5,000


def split(name: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the preset file says that ``params`` names, and the rest of them; nothing and all where they name none.

    Raises:
        UserError: no such file or preset, or one of another method.
    """
    preset = params.get("preset")
    if not isinstance(preset, str) or "@" not in preset:
        return {}, dict(params)
    return _preset(name, preset), {key: value for key, value in params.items() if key != "preset"}


def _preset(method: str, reference: str) -> dict[str, Any]:
    file, _, speed = reference.rpartition("@")
    path = path_of(file) if file.endswith(".yaml") else FOLDER / f"{file}.yaml"
    if not path.is_file():
        if path.parent == FOLDER:
            raise unknown_name("calibration", file, (one.stem for one in FOLDER.glob("*.yaml")))
        raise UserError(f"preset={reference}: no such file; `lazybench calibrate MODEL` writes one")
    try:
        with path.open("rb") as opened:
            text = opened.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        held = yaml_tree(text.decode())
        presets = {str(key): value["params"] for key, value in held["presets"].items()}
        made_for = str(held["method"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"preset={reference} is no file of `lazybench calibrate`: {shown(error)}") from None
    if made_for != method:
        raise UserError(f"preset={reference} was calibrated for {shown(made_for)}, not for {method}")
    if speed not in presets:
        raise unknown_name("preset", reference, (f"{file}@{one}" for one in presets))
    if not isinstance(presets[speed], Mapping):
        raise UserError(f"preset={reference} holds no parameters")
    return dict(presets[speed])
