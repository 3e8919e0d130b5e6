"""Model classes for vLLM that prune: its own, with hooks."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.sampling_params import SamplingParams
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from lazybench.pruning.scorers import OutputNorm
from lazybench.serving.passes import Kept, Part, Pass, layers_of
from lazybench.serving.plans import KEY, Plan, method_of, plan_for


class Prompts(LogitsProcessor):
    """Where each request's prompt ends, by its row in the batch; no logit is changed.

    A model sees tokens and no requests, and a preempted one comes again with all that it had generated. vLLM tells its
    processors of logits. A request with ``extra_args={"lazybench": "plain"}`` (over HTTP ``vllm_xargs``) is not pruned.
    """

    newest: Prompts | None = None  # a runner makes it, then loads its model

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: dict[int, tuple[int, bool]] = {}  # prompt tokens, and whether nothing is pruned
        Prompts.newest = self

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self.rows, batch_update, self._row)

    def apply(self, logits: Tensor) -> Tensor:
        return logits

    @staticmethod
    def _row(params: SamplingParams, prompt: list[int] | None, _: list[int]) -> tuple[int, bool] | None:
        return None if prompt is None else (len(prompt), (params.extra_args or {}).get(KEY) == "plain")


class Pruned(nn.Module):
    """A mixin for a causal model of vLLM: hooks where the plan says so, nothing where there is none.

    Attributes:
        kept: counts by request, see ``passes``.
        latest: the latest pass that pruned a prompt, for who measures.
    """

    model: Any  # the decoder, of vLLM's own class

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = vllm_config.model_config.hf_config
        self.vllm_config = vllm_config
        self.kept: Kept = {}
        self.plan: Plan | None = None
        self.latest: Pass | None = None
        self._pass: Pass | None = None  # the one that runs, where it holds a prompt
        self._hooks: list[Any] = []
        self._builder: Any = None
        assert Prompts.newest is not None, "the engine was configured without lazybench's plugin"
        self._prompts = Prompts.newest
        self.prune_by(plan_for(method_of(getattr(config, KEY)), config.get_text_config()))

    def prune_by(self, plan: Plan | None) -> None:
        """Prune so from now on; no request may be running."""
        while self._hooks:
            self._hooks.pop().remove()
        self.plan, layers = plan, self.model.layers
        if plan is None or not plan.places:
            return
        for index in plan.policy.scored(range(len(layers))):
            attention = layers[index].self_attn
            if isinstance(plan.policy.scorer, OutputNorm):
                self._hooks.append(attention.register_forward_hook(partial(self._see_output, index)))
            else:
                self._hooks.append(attention.attn.register_forward_pre_hook(partial(self._see, index)))
        for index in range(max(0, plan.places[0] + 1), len(layers)):
            self._hooks.append(layers[index].register_forward_pre_hook(self._positions))
        for index in plan.places:
            if index >= 0 and plan.policy.before_mlp:
                norm = layers[index].post_attention_layernorm
                self._hooks.append(norm.register_forward_pre_hook(lambda _, states: self._cut(states)))
            elif index >= 0:
                self._hooks.append(layers[index].register_forward_hook(lambda _, __, states: self._cut(states)))

    def forward(self, input_ids: Tensor, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        running = self._begin(positions)
        if running is None or running.is_plain:
            return super().forward(input_ids, positions, *args, **kwargs)
        if not running.prefills:  # the plain model's pass, but for where each stage's keys are
            for stage in range(1, len(running.plan.places) + 1):
                self._lay_out(running, stage)
            return super().forward(input_ids, running.position, *args, **kwargs)
        self._pass = self.latest = running
        try:
            if running.plan.before is not None:
                input_ids = input_ids[running.prune()]
                self._lay_out(running, 1)
            hidden = super().forward(input_ids, running.position, *args, **kwargs)
        finally:
            self._pass = None
        return running.give_back(hidden, positions.shape[0])

    def _begin(self, positions: Tensor) -> Pass | None:
        """The pass that begins; None: a plan that prunes nothing, or a warm-up."""
        described, rows = get_forward_context().attn_metadata, self._prompts.rows
        if self.plan is None or not self.plan.places or not isinstance(described, dict) or not rows:
            return None
        of = described[self.model.layers[0].self_attn.attn.layer_name]
        starts, tokens, firsts = of.query_start_loc.tolist(), of.seq_lens.tolist(), of.block_table[:, 0].tolist()
        if len(rows) != len(tokens):
            raise RuntimeError(f"lazybench: a pass over {len(tokens)} requests, and rows of {len(rows)} are known")
        parts = []
        for row, edges in enumerate(pairwise(starts)):
            prompt, whole = rows[row]
            parts.append(Part(firsts[row], prompt, tokens[row], edges[1] - edges[0], whole))
        block = self.vllm_config.cache_config.block_size
        return Pass(self.plan, parts, positions[: starts[-1]], of.block_table, block, self.kept)

    def _lay_out(self, running: Pass, stage: int) -> None:
        """Let the attention of a stage's layers read and write where its tokens are."""
        context: Any = get_forward_context()
        described, layers = context.attn_metadata, self.model.layers
        queries, contexts, slots = running.layout(stage)
        starts = torch.tensor([*accumulate(queries, initial=0)], dtype=torch.int32)
        common = CommonAttentionMetadata(
            query_start_loc=starts.to(slots.device),
            query_start_loc_cpu=starts,
            seq_lens=torch.tensor(contexts, dtype=torch.int32, device=slots.device),
            num_reqs=len(queries),
            num_actual_tokens=sum(queries),
            max_query_len=max(queries),
            max_seq_len=max(contexts),
            block_table_tensor=described[layers[0].self_attn.attn.layer_name].block_table,
            slot_mapping=slots,
        )
        if self._builder is None:  # the backend's own
            attention = [layer.self_attn.attn for layer in layers]
            spec, names = attention[0].get_kv_cache_spec(self.vllm_config), [one.layer_name for one in attention]
            kind = attention[0].get_attn_backend().get_builder_cls()
            self._builder = kind(spec, names, self.vllm_config, slots.device)
        made = self._builder.build(0, common)
        for index in layers_of(running.plan, stage, len(layers)):
            name = layers[index].self_attn.attn.layer_name
            described[name], context.slot_mapping[name] = made, slots

    # ---- hooks, which do nothing in a pass without a prompt
    def _see(self, index: int, attention: Any, shown: tuple[Tensor, ...]) -> None:
        if self._pass is not None:
            rows = len(self._pass.rows)  # behind them nothing but padding
            query = shown[0][:rows].view(rows, attention.num_heads, -1)
            key = shown[1][:rows].view(rows, attention.num_kv_heads, -1)
            self._pass.see(index, query, key, self.model.layers[index].self_attn.scaling)

    def _see_output(self, index: int, _: nn.Module, __: Any, output: Tensor) -> None:
        if self._pass is not None:
            self._pass.see_output(index, output)

    def _cut(self, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Hidden states and residual of the rows that go on."""
        if self._pass is None:
            return None
        rows = self._pass.prune()
        self._lay_out(self._pass, self._pass.prunings)
        return states[0][rows], states[1][rows]

    def _positions(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._pass is None else (self._pass.position, *inputs[1:])


class PrunedLlamaForCausalLM(Pruned, LlamaForCausalLM):
    """Llama."""


class PrunedMistralForCausalLM(Pruned, MistralForCausalLM):
    """Mistral."""


class PrunedQwen2ForCausalLM(Pruned, Qwen2ForCausalLM):
    """Qwen 2 and 2.5."""


class PrunedQwen3ForCausalLM(Pruned, Qwen3ForCausalLM):
    """Qwen 3."""
