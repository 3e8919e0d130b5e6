"""vLLM under the harness: what a method asks of ``model.generate`` runs in a vLLM engine, under the same clock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from lazybench.errors import UserError
from lazybench.methods.base import PolicyMethod
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request, Work
from lazybench.models import LoadedModel, ModelSpec
from lazybench.models.checkpoint import checkpoint_of
from lazybench.pruning.policy import BEFORE_THE_FIRST, Policy
from lazybench.run.config import RunConfig
from lazybench.serving.passes import layers_of
from lazybench.serving.plans import OFF, Plan, check_vllm, overrides, plan_for

# what vLLM needs to run in this process; what is set stays
ENVIRONMENT: Mapping[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "4",
}


def on_vllm(config: RunConfig, loaded: LoadedModel) -> LoadedModel:
    """The same model with vLLM to generate in its place.

    Raises:
        UserError: a method of the run that can't run there, before vLLM is loaded; else as ``Engine``.
    """
    for method in config.methods:
        if isinstance(method, PolicyMethod) and method.only_prunes:
            plan_for(method, loaded.model.config.get_text_config())
    return replace(loaded, engine=Engine(config.model, loaded.model, config.threads))


class Engine:
    """One vLLM engine, one request at a time, plain or pruned by whatever policy a method brings.

    Nothing is shared with the Hugging Face model beside it, which methods that read a prompt beforehand run on.

    Args:
        spec: of the model; its checkpoint is loaded once more.
        model: the Hugging Face model, for its config and precision.
        threads: of vLLM's own, on a CPU; None: all cores.

    Raises:
        UserError: no vLLM of the right version, no checkpoint of one of the classes.
    """

    def __init__(self, spec: ModelSpec, model: Any, threads: int | None = None) -> None:
        check_vllm()
        cores = {} if threads is None else {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
        for name, value in {**ENVIRONMENT, **cores}.items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        folder, config = checkpoint_of(spec), model.config.get_text_config()
        window = min(config.max_position_embeddings, 32768)
        self.llm = LLM(
            model=str(folder),
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=window,
            max_num_batched_tokens=window,
            max_num_seqs=1,
            gpu_memory_utilization=0.5,  # on a GPU the Hugging Face model is there too
            disable_log_stats=True,
            hf_overrides=overrides(model.config.architectures[0], Baseline()),
            **OFF,
        )
        (self._model,) = self.llm.apply_model(lambda served: served)
        self._config, self._names = config, count()
        heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * heads * model.dtype.itemsize

    def plain(self, request: Request, prompt_ids: Tensor) -> tuple[Tensor, int, int]:
        """What plain vLLM generates, (new_tokens,); bytes of the KV cache after the prefill and at the end."""
        tokens = self._generate(request, prompt_ids, None)
        prompt = prompt_ids.shape[1]
        return tokens, self._bytes(prompt), self._bytes(prompt + len(tokens) - 1)

    def pruned(self, request: Request, policy: Policy) -> tuple[Tensor, Work]:
        """What vLLM generates while it prunes, and the work of the prefill; dropped tokens keep their blocks."""
        if policy.settles or policy.revives or policy.retention or BEFORE_THE_FIRST in policy.layers:
            raise UserError(f"{policy.name} can't run on vLLM: it revives, evicts or chooses anew for each prompt")
        plan, prompt = Plan(policy), request.prompt_ids.shape[1]
        tokens = self._generate(request, request.prompt_ids, plan)
        counts = [prompt] * (len(plan.places) + 1)
        if (done := self._model.latest) is not None:
            (counts,) = [done.kept[part.block] for part in done.parts]
        layers = self._config.num_hidden_layers
        runs = [prompt] * layers
        for stage in range(1, len(plan.places) + 1):
            for layer in layers_of(plan, stage, layers):
                runs[layer] = counts[stage]
        mlp_runs = [
            counts[plan.places.index(layer) + 1] if layer in plan.places else runs[layer] for layer in range(layers)
        ]
        return tokens, Work(
            tuple(runs),
            mlp_tokens_of_layer_runs=tuple(mlp_runs) if policy.before_mlp and plan.places else None,
            other_flops=0.0 if done is None else done.scoring_flops,
            by_stage=tuple(tokens / prompt for tokens in counts),
            kv_bytes_prefill=self._bytes(prompt),
            kv_bytes_end=self._bytes(prompt + len(tokens) - 1),
            aux_bytes_prefill=0,
            aux_bytes_end=0,
        )

    def _bytes(self, tokens: int) -> int:
        """Of the blocks that hold so many tokens."""
        block = self.llm.llm_engine.vllm_config.cache_config.block_size
        return -(-tokens // block) * block * self._token_bytes

    def _generate(self, request: Request, prompt_ids: Tensor, plan: Plan | None) -> Tensor:
        if "logits_processor" in request.generate_kwargs:
            raise UserError(
                "vLLM can't be forced along another answer; fidelity is measured on the Hugging Face engine"
            )
        if self._model.plan != plan:
            self._model.prune_by(plan)
        self._model.latest = None
        clock, engine = request.generate_kwargs.get("streamer"), self.llm.llm_engine
        if clock is not None:
            clock.put(prompt_ids)
        ids = prompt_ids[0].tolist()
        engine.add_request(str(next(self._names)), {"prompt_token_ids": ids}, self._sampling(request.generate_kwargs))
        tokens: list[int] = []
        while engine.has_unfinished_requests():
            for output in engine.step():
                for token in output.outputs[0].token_ids:
                    tokens.append(token)
                    if clock is not None:
                        clock.put(torch.tensor([token]))
        return torch.tensor(tokens, dtype=torch.long)

    @staticmethod
    def _sampling(limits: Mapping[str, Any]) -> Any:
        """Greedy, with the limits of ``model.generate``."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        ends = limits.get("eos_token_id") or []
        return SamplingParams(
            temperature=0.0,
            max_tokens=limits["max_new_tokens"],
            min_tokens=limits.get("min_new_tokens") or 0,
            ignore_eos=True,
            stop_token_ids=[ends] if isinstance(ends, int) else list(ends),
            stop=list(limits.get("stop_strings") or []),
            output_kind=RequestOutputKind.DELTA,
        )
