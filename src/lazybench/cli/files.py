"""Files of settings that anybody may have written: data, which nothing acts on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lazybench.errors import UserError
from lazybench.models.foreign import check_tree


def read_settings(path: Path, name: str) -> dict[str, Any]:
    """A YAML file of settings that anybody may have written, as plain data.

    Raises:
        UserError: it can't be read, holds no settings, or holds what Hydra or OmegaConf would act on.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_tree(text)
        values = OmegaConf.to_container(OmegaConf.create(text) if text.strip() else {})
    except Exception as error:  # whatever a file that is no YAML makes the parser raise
        raise UserError(f"{name} can't be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} holds no settings, as in `layers: [9, 19]` and `keep: [0.7, 0.7]`")
    _check_is_data(values, name, "")
    return {str(key): value for key, value in values.items()}


def _check_is_data(value: object, name: str, key: str) -> None:
    """Refuse what would run or read something if it were acted on, at any depth: ``_target_``, ``${oc.env:HOME}``."""
    if isinstance(value, Mapping):
        for part, inner in value.items():
            whole = f"{key}.{part}".lstrip(".")
            if re.fullmatch(r"_\w+_", str(part)):
                raise UserError(f"{name}: {whole} names code to run; a file is data, leave it out")
            _check_is_data(inner, name, whole)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_is_data(inner, name, f"{key}[{place}]")
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{name}: {key}={value} reads another value; a file is data, write the value out")
