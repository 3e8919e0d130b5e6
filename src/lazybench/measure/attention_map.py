"""Figure 2's measurement: how much attention the next token pays to each prompt token, in every layer."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from lazybench.pruning.probe import probe


def attention_map(model: PreTrainedModel, prompt_ids: Tensor) -> Tensor:
    """The last query's attention averaged over heads, per layer of one plain prefill (paper, section 3.1, figure 2).

    Args:
        prompt_ids: (1, prompt_tokens), on the model's device.

    Returns:
        (layers, prompt_tokens) float32 on the CPU; each row sums to 1 (less with attention sinks).
    """
    return probe(model, prompt_ids, range(model.config.get_text_config().num_hidden_layers)).float().cpu()
