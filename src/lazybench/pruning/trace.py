"""What was computed, selected and revived, per forward pass and stage (paper, figures 2 and 7, table 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from lazybench.errors import UserError


@dataclass
class StepTrace:
    """One forward pass; token counts per stage, summed over the batch, padding left out.

    Attributes:
        new: tokens that came in with this pass.
        is_prompt: they are prompt tokens (a prefill), not generated ones.
        again: of the new tokens, those that an earlier pass of the same call had computed: transformers dropped the
            cache in the middle of it (Phi-3 does, where its longrope factors change).
        computed: tokens that went through the stage's layers.
        selected: tokens that the stage's layers attended to.
        revived: of the computed ones, those that came back from the Aux Cache.
        mlp_saved: the pruning layers' MLPs ran for the tokens that go on alone.
        scoring_flops: of the query-key products that tokens were scored by or a watcher was shown, beside the
            attention itself.
    """

    new: int
    is_prompt: bool
    computed: tuple[int, ...] = ()
    selected: tuple[int, ...] = ()
    revived: tuple[int, ...] = ()
    mlp_saved: bool = False
    scoring_flops: float = 0.0
    again: int = 0


@dataclass
class Trace:
    """The forward passes of one ``generate`` call: the prefill first, then the decoding steps.

    Attributes:
        stages: the layers of each stage, ``(range(0, 9), range(9, 18), ...)``; known after the first pass.
        steps: the forward passes.
        kv_bytes, aux_bytes: what the caches held after each forward pass, spare room left out.
    """

    stages: tuple[range, ...] = ()
    kv_bytes: list[int] = field(default_factory=list)
    aux_bytes: list[int] = field(default_factory=list)
    steps: list[StepTrace] = field(default_factory=list)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that came in as prompt, summed over the batch."""
        return sum(step.new for step in self.steps if step.is_prompt)

    @property
    def prompt_tokens_computed(self) -> tuple[tuple[float, ...], ...]:
        """(steps, stages) share of the prompt tokens that each stage has computed by the end of each step."""
        totals = [0] * len(self.stages)
        shares = []
        for step in self.steps:
            # a generated token goes through every stage in its own step and is never revived
            generated = 0 if step.is_prompt else step.new - step.again
            totals = [total + computed - generated for total, computed in zip(totals, step.computed, strict=True)]
            shares.append(tuple(total / self.prompt_tokens for total in totals))
        return tuple(shares)

    @property
    def prompt_tokens_computed_by_stage(self) -> tuple[float, ...]:
        """Share of the prompt tokens that each stage has computed by the end of the generation.

        Raises:
            UserError: nothing was generated yet.
        """
        if not self.steps:
            raise UserError(
                "nothing was generated inside the context yet: call model.generate first, then read the trace"
            )
        return self.prompt_tokens_computed[-1]

    @property
    def prompt_tokens_computed_mean(self) -> float:
        """The same, as the mean over layers (table 2's headline)."""
        shares = self.prompt_tokens_computed_by_stage
        layers = sum(len(stage) for stage in self.stages)
        return sum(share * len(stage) for share, stage in zip(shares, self.stages, strict=True)) / layers
