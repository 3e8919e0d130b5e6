"""Generation under the pruning engine, and the work that its trace tells of."""

from __future__ import annotations

from lazybench.contract import Request, Response, Work
from lazybench.methods.shortening import generate
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.trace import Trace


def answer_pruned(request: Request, schedule: PruningSchedule) -> Response:
    """Generate from the request's prompt while the engine prunes by ``schedule``."""
    with LazyLLM(request.model, schedule) as lazy:
        new_tokens = generate(request, request.prompt_ids)
    return Response(new_tokens, work_of(lazy.trace))


def work_of(trace: Trace) -> Work:
    """What the engine computed in one generation from one prompt."""
    prefill, *decoding = trace.steps
    by_step = trace.prompt_tokens_computed
    revived = [sum(step.revived) for step in decoding]
    return Work(
        tuple(tokens for stage, tokens in zip(trace.stages, prefill.computed, strict=True) for _ in stage),
        prompt_tokens_computed=trace.prompt_tokens_computed_mean,
        by_stage=by_step[-1],
        by_step=by_step,
        revived_tokens_per_step=sum(revived) / len(revived) if revived else None,
    )
