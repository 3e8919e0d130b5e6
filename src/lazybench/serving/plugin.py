"""What vLLM calls in each process of its own (entry point ``vllm.general_plugins``): the classes and their checks."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from lazybench.errors import UserError, refuse
from lazybench.serving.plans import CLASSES, KEY, check_vllm, method_of, plan_for

PROMPTS = "lazybench.serving.models:Prompts"


def register() -> None:
    """Make the pruned classes known by name; none is imported before a model asks for it."""
    try:
        check_vllm()
    except UserError as error:  # plain vLLM goes on without them
        logging.getLogger("vllm.lazybench").warning("lazybench: %s", error)
        return
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    # asked when an engine with one of the classes is configured, before a process or a model is there
    checks = type("Checks", (VerifyAndUpdateConfig,), {"verify_and_update_config": staticmethod(configure)})
    for name in CLASSES:
        ModelRegistry.register_model(f"Pruned{name}", f"lazybench.serving.models:Pruned{name}")
        MODELS_CONFIG_MAP[f"Pruned{name}"] = checks


def configure(vllm_config: Any) -> None:
    """Refuse what pruning can't run with, and let the engine tell where prompts end.

    Raises:
        RuntimeError: in one line; vLLM's settings would wrap a ``ValueError``. Under vLLM's own command SystemExit.
    """
    config, model_config = vllm_config.model_config.hf_config, vllm_config.model_config
    try:
        plan_for(method_of(getattr(config, KEY, {})), config.get_text_config())
        if reasons := [reason for reason, on in cant_run(vllm_config).items() if on]:
            raise UserError(reasons[0])
    except UserError as error:
        if Path(sys.argv[0]).name in ("vllm", "api_server.py"):
            raise SystemExit(refuse(error)) from None
        raise RuntimeError(f"lazybench: {error}") from None
    model_config.logits_processors = [*(model_config.logits_processors or []), PROMPTS]


def cant_run(vllm_config: Any) -> dict[str, bool]:
    """What can't run with pruning and why, with what to do; and whether it is on."""
    cache, scheduler, parallel = (getattr(vllm_config, f"{part}_config") for part in ("cache", "scheduler", "parallel"))
    spread = parallel.decode_context_parallel_size * parallel.prefill_context_parallel_size
    return {
        "prefix caching shares blocks of which each request keeps others: --no-enable-prefix-caching": bool(
            cache.enable_prefix_caching
        ),
        "chunked prefill cuts prompts, whose ends choose: --no-enable-chunked-prefill, and --max-num-batched-tokens of "
        "at least --max-model-len": scheduler.enable_chunked_prefill,
        "a compiled graph is the plain model's: --enforce-eager": not vllm_config.model_config.enforce_eager,
        "speculative decoding checks several tokens at once: no --speculative-config": bool(
            vllm_config.speculative_config
        ),
        "pipeline parallel hands on whole prompts: --pipeline-parallel-size 1": parallel.pipeline_parallel_size > 1,
        "tensor parallel shows a rank its own heads alone: --tensor-parallel-size 1": parallel.tensor_parallel_size > 1,
        "context parallel spreads a request's blocks: no context parallel sizes": spread > 1,
        "vLLM's second model runner tells no rows: VLLM_USE_V2_MODEL_RUNNER=0": vllm_config.use_v2_model_runner,
    }
