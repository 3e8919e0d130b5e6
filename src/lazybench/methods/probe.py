"""A look at the prompt through a model's first layers: which tokens does the last one attend to?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from lazybench.errors import UserError
from lazybench.pruning.checks import find_layers
from lazybench.pruning.importance import last_query_importance


class _EnoughLayers(Exception):
    """Ends a forward pass after the last layer that is asked for."""


class _WatchAttention(TorchFunctionMode):
    """Notes the last query's attention wherever torch computes it: in SDPA, or as a softmax of its own.

    Watching torch instead of the modules needs no attention function registered and no family named.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.importances: list[Tensor] = []  # each (tokens,), one a layer

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            query, key = args[0], args[1]  # (1, heads, tokens, head_dim), (1, kv_heads, tokens, head_dim)
            scaling = kwargs.get("scale") or query.shape[-1] ** -0.5
            self.importances.append(last_query_importance(query, key, scaling)[0])
        elif name == "softmax" and output.dim() == 4 and output.shape[2] == self.tokens:
            # eager attention: (1, heads, tokens, tokens), and a column for sinks in some families
            self.importances.append(output[0, :, -1, : self.tokens].float().mean(0))
        return output


@torch.no_grad()
def probe_importance(model: PreTrainedModel, prompt_ids: Tensor, layers: int) -> Tensor:
    """Run the first ``layers`` layers on the whole prompt and no further.

    Args:
        prompt_ids: (1, prompt_tokens).

    Returns:
        (prompt_tokens,) the attention that the last token pays each token, averaged over heads and layers.

    Raises:
        UserError: the model's attention runs outside torch (flash attention) and can't be watched.
    """

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise _EnoughLayers

    watch = _WatchAttention(prompt_ids.shape[1])
    hook = find_layers(model)[1][layers - 1].register_forward_hook(stop)
    try:
        with watch:
            model(prompt_ids, use_cache=False)
    except _EnoughLayers:
        pass
    finally:
        hook.remove()
    if len(watch.importances) != layers:
        raise UserError(
            f"static_pruning variant=rerun can't watch attention={model.config._attn_implementation!r}; "
            "load the model with model.attention=sdpa or eager"
        )
    return torch.stack([importance.to(prompt_ids.device) for importance in watch.importances]).mean(0)
