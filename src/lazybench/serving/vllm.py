"""A pruned vLLM engine in Python: ``llm(MODEL, "taper", preset="fast")``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lazybench import methods
from lazybench.models import ModelSpec
from lazybench.models.checkpoint import checkpoint_of
from lazybench.models.loading import NO_CODE
from lazybench.serving.plans import OFF, check_vllm, overrides, plan_for


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

    built, path = methods.build(method, params), Path(model).expanduser()
    local = path.exists() or path.suffix == ".gguf"
    folder = checkpoint_of(ModelSpec("custom", path=path) if local else ModelSpec("custom", hub_id=model))
    config = AutoConfig.from_pretrained(folder, **NO_CODE)
    options: dict[str, Any] = {}
    if plan_for(built, config.get_text_config()) is not None:
        window = (engine or {}).get("max_model_len") or config.get_text_config().max_position_embeddings
        named = overrides(config.architectures[0], built)
        options = {**OFF, "hf_overrides": named, "max_num_batched_tokens": max(8192, window)}
    return LLM(model=str(folder), **{**options, **(engine or {})})
