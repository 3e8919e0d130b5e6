"""What vLLM calls in each of its processes (entry point ``vllm.general_plugins``): the classes and who may use them."""

from __future__ import annotations

import logging
from typing import Any

from lazybench.errors import UserError
from lazybench.serving.plans import FAMILIES, KEY, check_vllm, method_of, plan_for

PROMPTS = "lazybench.serving.models:Prompts"


def register() -> None:
    """Make the pruned classes known by name; none is imported before a model asks for it."""
    try:
        check_vllm()
    except UserError as error:
        logging.getLogger("vllm.lazybench").warning("lazybench: %s; its models are left out", error)
        return
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for name in FAMILIES.values():
        ModelRegistry.register_model(name, f"lazybench.serving.models:{name}")
        MODELS_CONFIG_MAP[name] = Checks


class Checks:
    """Asked by vLLM when an engine with one of the classes is configured, before a process or a model is there."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Part of the interface; nothing to do."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Refuse what pruning can't run with, and let the engine tell where prompts end.

        Raises:
            RuntimeError: in one line. A ``UserError`` is a ``ValueError``, which vLLM's settings wrap.
        """
        config = vllm_config.model_config.hf_config
        try:
            settings = getattr(config, KEY, None)
            if settings is None:
                raise UserError(f'--hf-overrides names a pruned class and no method; add "{KEY}": {{"method": ...}}')
            plan_for(method_of(settings), config.get_text_config())
            check_engine(vllm_config)
        except UserError as error:
            raise RuntimeError(f"lazybench: {error}") from None
        named = vllm_config.model_config.logits_processors or []
        vllm_config.model_config.logits_processors = [*named, PROMPTS]


def check_engine(vllm_config: Any) -> None:
    """Raises: UserError for what is switched on and can't run with pruning."""
    cache, scheduler, parallel = (getattr(vllm_config, f"{part}_config") for part in ("cache", "scheduler", "parallel"))
    refused = {
        "prefix caching shares blocks between requests that keep different tokens; --no-enable-prefix-caching": (
            cache.enable_prefix_caching
        ),
        "chunked prefill may cut a prompt, and its last tokens choose; --no-enable-chunked-prefill": (
            scheduler.enable_chunked_prefill
        ),
        "compiled graphs hold the plain model's layers; --enforce-eager": not vllm_config.model_config.enforce_eager,
        "speculative decoding verifies several tokens at once; leave --speculative-config out": (
            vllm_config.speculative_config is not None
        ),
        "pipeline parallel hands on whole prompts between stages; --pipeline-parallel-size 1": (
            parallel.pipeline_parallel_size > 1
        ),
        "tensor parallel shows each rank its own heads' scores; --tensor-parallel-size 1": (
            parallel.tensor_parallel_size > 1
        ),
        "context parallel spreads a request's blocks; leave it out": (
            parallel.decode_context_parallel_size * parallel.prefill_context_parallel_size > 1
        ),
        "the second model runner has no rows of requests; VLLM_USE_V2_MODEL_RUNNER=0": vllm_config.use_v2_model_runner,
    }
    for reason, on in refused.items():
        if on:
            raise UserError(reason)
