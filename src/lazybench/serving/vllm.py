"""A pruned vLLM engine in Python: ``llm(MODEL, "taper", preset="fast")``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazybench import methods
from lazybench.errors import UserError
from lazybench.models.hub import Repository
from lazybench.serving.plans import check_vllm, overrides, plan_for

# what vLLM turns on by default and pruning can't run with
OFF: Mapping[str, Any] = {"enforce_eager": True, "enable_prefix_caching": False, "enable_chunked_prefill": False}


def llm(model: str, method: str = "taper", engine: Mapping[str, Any] | None = None, **params: Any) -> Any:
    """``vllm.LLM`` of a model that prunes.

    Args:
        model: a checkpoint's folder, a GGUF file, or its name on the hub.
        method: how it prunes, by name; ``"baseline"``: plain vLLM.
        engine: options of ``vllm.LLM``; a prompt must fit into ``max_num_batched_tokens``.
        params: the method's own.

    Raises:
        UserError: no such vLLM, a model or method that can't be served.
    """
    check_vllm()
    from vllm import LLM

    folder, options = prepared(model, method, params)
    chosen = {**options, **(engine or {})}
    chosen.setdefault("max_num_batched_tokens", max(8192, chosen.get("max_model_len") or window(folder)))
    return LLM(model=folder, **chosen)


def prepared(model: str, method: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The checkpoint as vLLM takes it, and the options that make it prune.

    Raises:
        UserError: as ``llm``.
    """
    from transformers import AutoConfig

    built = methods.build(method, params)
    folder = folder_of(model)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if plan_for(built, config.get_text_config()) is None:
        return folder, {}
    return folder, {**OFF, "hf_overrides": overrides((config.architectures or ["it"])[0], built)}


def folder_of(model: str) -> str:
    """A folder as it is, a GGUF file's converted one, the files of a name on the hub."""
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        from lazybench.models.gguf import converted

        return str(converted(path).folder)
    if (path / "config.json").is_file():
        return str(path)
    if path.exists() or model.count("/") != 1:
        raise UserError(f"no checkpoint at {model}: give a folder with config.json, a .gguf file or a name on the hub")
    return str(Repository.find(model, None).all_files())


def window(folder: str) -> int:
    """The longest context of a checkpoint, in tokens."""
    return int(json.loads((Path(folder) / "config.json").read_text())["max_position_embeddings"])
