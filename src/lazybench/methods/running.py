"""What methods run: a generation from a shorter prompt or under the engine, a look at the prompt; and its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from lazybench.methods.request import Before, Request, Response, Work
from lazybench.models.flops import projections_flops
from lazybench.pruning.choosing import EnoughSeen, Watch
from lazybench.pruning.engine import Pruned
from lazybench.pruning.layers import cache_of
from lazybench.pruning.policy import Policy
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import AttentionScorer, Scorer
from lazybench.pruning.selection import choose
from lazybench.pruning.trace import Trace

NOTHING_RAN = Before()
EQUATION_1 = AttentionScorer()


def best_positions(scores: Tensor, kept: int, last: int = 0) -> Tensor:
    """Positions of the ``kept`` best-scored tokens, in the text's order.  # (kept,)

    Args:
        scores: (1, tokens).
        last: newest tokens that stay whatever their score.
    """
    tokens = scores.shape[1]
    position = torch.arange(tokens, device=scores.device)[None]
    return choose(scores, position, position >= tokens - last, [min(kept, tokens)])[0].sort().values


def generate(request: Request, prompt_ids: Tensor) -> tuple[Tensor, Cache]:
    """What the model generates from ``prompt_ids``, the prompt left out, (new_tokens,); and its KV cache at the end."""
    output = request.model.generate(  # type: ignore[operator]
        prompt_ids,
        attention_mask=torch.ones_like(prompt_ids),
        return_dict_in_generate=True,
        **request.generate_kwargs,
    )
    return output.sequences[0, prompt_ids.shape[1] :], cache_of(output)


def answer(
    request: Request, positions: Tensor | None = None, before: Before = NOTHING_RAN, overhead_s: float = 0.0
) -> Response:
    """Generate with the plain model from the tokens that stay, and say what that and choosing them ran.

    Args:
        positions: (kept,) of the prompt, rising; the model sees them numbered anew from 0. None: all.
        before: what ran to choose them.
        overhead_s: see ``Response``.
    """
    ids, layers = request.prompt_ids, request.model.config.get_text_config().num_hidden_layers
    kept = ids if positions is None else ids[:, positions.to(ids.device)]
    new_tokens, prefill, end = (request.engine.plain if request.engine else _plain)(request, kept)
    share = kept.shape[1] / ids.shape[1]
    work = Work(
        before.layer_runs + (kept.shape[1],) * layers,
        other_flops=before.flops,
        by_stage=(1.0 + share, share) if 0 < len(before.layer_runs) < layers else (),
        kv_bytes_prefill=prefill,
        kv_bytes_end=end,
        aux_bytes_prefill=0,
        aux_bytes_end=0,
    )
    return Response(new_tokens, work, overhead_s)


def _plain(request: Request, prompt_ids: Tensor) -> tuple[Tensor, int, int]:
    """What ``model.generate`` gives, and bytes of its KV cache after the prefill and at the end."""
    new_tokens, cache = generate(request, prompt_ids)
    at_the_end = [(keys.nbytes + values.nbytes, keys.shape[-2]) for keys, values in _keys_and_values(cache)]
    prefill = sum(held * min(prompt_ids.shape[1], tokens) // tokens for held, tokens in at_the_end)
    return new_tokens, prefill, sum(held for held, _ in at_the_end)


def _keys_and_values(cache: Cache) -> Iterator[tuple[Tensor, Tensor]]:
    """(1, kv_heads, tokens, head_dim) each, of every layer that holds any."""
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is not None and values is not None and keys.numel():
            yield keys, values


def answer_pruned(
    request: Request, policy: Policy, other_flops: float = 0.0, overhead_s: float = 0.0, read_before: float = 0.0
) -> Response:
    """Generate from the request's prompt while the engine prunes by ``policy``.

    Args:
        other_flops: see ``Work``.
        overhead_s: see ``Response``.
        read_before: share of the prompt that the same model had computed before, to choose by it.
    """
    if request.engine is not None:
        new_tokens, work = request.engine.pruned(request, policy)
        return Response(new_tokens, replace(work, other_flops=work.other_flops + other_flops), overhead_s)
    with Pruned(request.model, policy) as run:
        new_tokens, _ = generate(request, request.prompt_ids)
    return Response(new_tokens, work_of(run.trace, other_flops, policy.revives, read_before), overhead_s)


def work_of(trace: Trace, other_flops: float = 0.0, revives: bool = True, read_before: float = 0.0) -> Work:
    """What the engine computed in one generation from one prompt, what tokens are scored by included."""
    prefill, *decoding = trace.steps
    with_layers = [place for place, stage in enumerate(trace.stages) if len(stage)]  # none before the first layer
    by_step = tuple(tuple(step[place] for place in with_layers) for step in trace.prompt_tokens_computed)
    revived = [sum(step.revived) for step in decoding]
    runs = [computed for stage, computed in zip(trace.stages, prefill.computed, strict=True) for _ in stage]
    mlp_runs = list(runs)
    if prefill.mlp_saved:
        for stage, computed in zip(trace.stages, prefill.computed[1:], strict=False):
            if len(stage):  # tokens dropped before the first layer ran through no layer's MLP
                mlp_runs[stage.stop - 1] = computed
    return Work(
        tuple(runs),
        mlp_tokens_of_layer_runs=tuple(mlp_runs) if prefill.mlp_saved else None,
        other_flops=other_flops + prefill.scoring_flops,
        prompt_tokens_computed=trace.prompt_tokens_computed_mean + read_before,
        by_stage=by_step[-1],
        by_step=by_step,
        revived_tokens_per_step=sum(revived) / len(revived) if revived and revives else None,
        kv_bytes_prefill=trace.kv_bytes[0],
        kv_bytes_end=trace.kv_bytes[-1],
        aux_bytes_prefill=trace.aux_bytes[0],
        aux_bytes_end=trace.aux_bytes[-1],
    )


def everything(request: Request) -> Tensor:
    """(tokens,) every position of the prompt."""
    return torch.arange(request.prompt_ids.shape[1], device=request.prompt_ids.device)


@torch.no_grad()
def probe_layers(
    model: PreTrainedModel, prompt_ids: Tensor, layers: Sequence[int], scorer: Scorer = EQUATION_1
) -> tuple[Tensor, float]:
    """Run a plain prefill up to the attention of the last of ``layers`` and no further, and score its tokens.

    Args:
        prompt_ids: (1, prompt_tokens), on the model's device.
        layers: 0-based indices, rising.
        scorer: what the tokens are scored by in each of them; equation 1 of the paper as it is.

    Returns:
        (layers, prompt_tokens) scores on the prompt's device, and the FLOPs of the attention rows behind them. The
        last layer ran up to its queries, keys and values.

    Raises:
        UserError: the model can't run under the engine.
    """
    scores: list[Tensor] = []

    def see(seen: Seen) -> None:
        scores.append(scorer(seen)[0].to(prompt_ids.device))
        if seen.layer == layers[-1]:
            raise EnoughSeen

    watch = Watch(frozenset(layers), see, max(1, scorer.queries(prompt_ids.shape[1])))
    with Pruned(model, Policy(), watch) as run, suppress(EnoughSeen):
        model(prompt_ids)
    return torch.stack(scores), run.trace.steps[0].scoring_flops


def probed(request: Request, layers: Sequence[int], scorer: Scorer = EQUATION_1) -> tuple[Tensor, Before]:
    """``probe_layers`` on the request's prompt: (layers, prompt_tokens) scores, and what that ran."""
    tokens = request.prompt_ids.shape[1]
    scores, rows = probe_layers(request.model, request.prompt_ids, layers, scorer)
    return scores, Before((tokens,) * layers[-1], rows + projections_flops(request.model.config, tokens))
