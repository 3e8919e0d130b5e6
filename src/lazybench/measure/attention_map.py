"""Figure 2's measurement: how much attention the next token pays to each prompt token, in every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lazybench.pruning.importance import last_query_importance

NAME = "lazybench_attention_map"


@torch.no_grad()
def attention_map(model: PreTrainedModel, prompt_ids: Tensor) -> Tensor:
    """One plain prefill that notes, per layer, the last query's attention averaged over heads.

    Paper, section 3.1 and figure 2. Only the last row of each attention matrix is computed beside SDPA.

    Args:
        prompt_ids: (1, prompt_tokens), on the model's device.

    Returns:
        (layers, prompt_tokens) float32 on the CPU; each row sums to 1 (less with attention sinks).
    """
    layers: list[Tensor] = []
    with _watched(model, layers):
        model(input_ids=prompt_ids, use_cache=False, logits_to_keep=1)
    return torch.stack(layers)


@contextmanager
def _watched(model: PreTrainedModel, layers: list[Tensor]) -> Iterator[None]:
    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        scores = last_query_importance(
            query, key, scaling, softcap=kwargs.get("softcap"), sinks=kwargs.get("s_aux")
        )  # (1, prompt_tokens)
        layers.append(scores[0].float().cpu())
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
