"""Methods that are a policy: they generate under the pruning engine, and its trace says what was run."""

from __future__ import annotations

from abc import abstractmethod

from transformers import PreTrainedConfig, PreTrainedModel

from lazybench.contract import Method, Request, Response, Work
from lazybench.methods.shortening import generate
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy
from lazybench.pruning.trace import Trace


class PolicyMethod(Method):
    """A method that says how it chooses tokens, and leaves the rest to the engine."""

    @property
    def title(self) -> str:
        """What the engine's errors call it."""
        return type(self).__name__.removesuffix("Method")

    @abstractmethod
    def policy(self, config: PreTrainedConfig) -> Policy:
        """The policy for a model of this text config.

        Raises:
            UserError: the parameters don't fit this model.
        """

    def prepare(self, model: PreTrainedModel) -> None:
        """Refuse a model or parameters that can't run, before anything is measured."""
        Pruned(model, self.policy(model.config.get_text_config()))

    def run(self, request: Request) -> Response:
        return answer_pruned(request, self.policy(request.model.config.get_text_config()))


def answer_pruned(
    request: Request, policy: Policy, other_flops: float = 0.0, overhead_s: float = 0.0, read_before: float = 0.0
) -> Response:
    """Generate from the request's prompt while the engine prunes by ``policy``.

    Args:
        other_flops: see ``Work``.
        overhead_s: see ``Response``.
        read_before: share of the prompt that the same model had computed before, to choose by it.
    """
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
