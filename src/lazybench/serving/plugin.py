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

    class Checks(VerifyAndUpdateConfig):
        """Asked when an engine with one of the classes is configured, before a process or a model is there."""

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            configure(vllm_config)

    for name in CLASSES:
        ModelRegistry.register_model(f"Pruned{name}", f"lazybench.serving.models:Pruned{name}")
        MODELS_CONFIG_MAP[f"Pruned{name}"] = Checks


def configure(vllm_config: Any) -> None:
    """Refuse what pruning can't run with, and let the engine tell where prompts end.

    Raises:
        RuntimeError: in one line. A ``UserError`` is a ``ValueError``, which vLLM's settings wrap.
        SystemExit: instead, under vLLM's own command.
    """
    config, model_config = vllm_config.model_config.hf_config, vllm_config.model_config
    try:
        settings = getattr(config, KEY, None)
        if settings is None:
            raise UserError(f'--hf-overrides names a pruned class and no method; add "{KEY}": {{"method": "taper"}}')
        plan_for(method_of(settings), config.get_text_config())
        for reason, on in refused(vllm_config).items():
            if on:
                raise UserError(reason)
    except UserError as error:
        if Path(sys.argv[0]).name == "vllm":
            raise SystemExit(refuse(error)) from None
        raise RuntimeError(f"lazybench: {error}") from None
    model_config.logits_processors = [*(model_config.logits_processors or []), PROMPTS]


def refused(vllm_config: Any) -> dict[str, bool]:
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
