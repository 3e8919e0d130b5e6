"""What the engine promises, on tiny models of the families that it supports.

That nothing pruned is the plain model, and pruned what the plain model makes of what was selected, is shown on every
family; the rest on one family of each trait, and on every other family in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from recorder import dense_replay, recording
from tiny_models import (
    FAMILIES,
    generate_logits,
    in_turn,
    left_padded,
    random_prompt,
    shared_model,
    tiny_model,
)
from torch import Tensor
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.layers import find_mlp
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import AttentionScorer

every_family = pytest.mark.parametrize("family", FAMILIES)
NOTHING_PRUNED = PruningSchedule((0, 2), (1.0, 1.0))
PRUNED = PruningSchedule((0, 1, 2), (0.7, 0.7, 0.6))
PROMPTS = [random_prompt(tokens, seed) for seed, tokens in enumerate((17, 11, 14))]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)


def under(model: PreTrainedModel, by: PruningSchedule | Policy) -> Pruned:
    return Pruned(model, by) if isinstance(by, Policy) else LazyLLM(model, by)


def outputs(
    model: PreTrainedModel, prompt: Tensor, by: PruningSchedule | Policy | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Tokens and logits of eight greedy steps, plain (``None``) or under the engine."""
    with under(model, by) if by else nullcontext():
        return generate_logits(model, prompt, 8, **kwargs)


@every_family
def test_keep_ratio_1_is_the_plain_model_alone_in_a_padded_batch_and_with_beams(family):
    model = shared_model(family)
    plain_tokens, plain_logits = outputs(model, PROMPTS[0], None)
    for schedule in (NOTHING_PRUNED, PruningSchedule((), ())):
        tokens, logits = outputs(model, PROMPTS[0], schedule)
        assert tokens.equal(plain_tokens)
        close(logits, plain_logits)
    batch, mask = left_padded(PROMPTS)
    plain_tokens, plain_logits = outputs(model, batch, None, attention_mask=mask)
    tokens, logits = outputs(model, batch, NOTHING_PRUNED, attention_mask=mask)
    assert tokens.equal(plain_tokens)
    close(logits, plain_logits)
    plain_beams = outputs(model, batch, None, attention_mask=mask, num_beams=3)[0]
    assert outputs(model, batch, NOTHING_PRUNED, attention_mask=mask, num_beams=3)[0].equal(plain_beams)


CONTEXT, MASS, FOR_GOOD = (
    replace(PRUNED, ratio_of="context"),
    replace(PRUNED, ratio_of="mass"),
    replace(PRUNED, revive=False),
)
# never revived: a window of queries, pooled scores, a spared first token, an MLP for what goes on alone
WINDOWED = Policy((0, 2), AttentionScorer(window=4, pool=3), (Ratio(0.6),) * 2, first=1, last=4, before_mlp=True)
FAMILIES_OF_WINDOWED = dict.fromkeys([*in_turn(4), "llama4_text"])  # whose experts give their output flat


@pytest.mark.parametrize(
    ("family", "by"),
    [
        *((family, PRUNED) for family in in_turn(0)),
        *((family, WINDOWED) for family in FAMILIES_OF_WINDOWED),
        *(("bloom", other) for other in (CONTEXT, MASS, FOR_GOOD)),
    ],
)
def test_a_padded_batch_gives_what_each_prompt_gives_alone(family, by):
    model = shared_model(family)
    batch, mask = left_padded(PROMPTS)
    tokens, logits = outputs(model, batch, by, attention_mask=mask)
    for row, prompt in enumerate(PROMPTS):
        tokens_alone, logits_alone = outputs(model, prompt, by)
        assert tokens[row, batch.shape[1] :].equal(tokens_alone[0, prompt.shape[1] :])
        close(logits[:, row], logits_alone[:, 0])
    assert outputs(model, batch[1:2], by, attention_mask=mask[1:2])[0].equal(tokens[1:2])  # one prompt, padded too


@pytest.mark.parametrize(
    ("family", "by"),
    [*((family, PRUNED) for family in FAMILIES), *((family, WINDOWED) for family in FAMILIES_OF_WINDOWED)],
)
def test_pruning_is_the_plain_model_that_sees_only_what_was_selected(family, by):
    """And no token runs twice in a layer, selections nest, the last token stays, the counts are the schedule's."""
    model, prompt = shared_model(family), PROMPTS[0]
    with under(model, by) as run, recording(run) as recorder:
        tokens, logits = generate_logits(model, prompt, 8)
        assert by is PRUNED or not run._cache._aux
    assert run.trace.steps[0].mlp_saved == (by is WINDOWED and find_mlp(layers_of(model)[0]) is not None)
    if run.trace.steps[0].mlp_saved:  # saving the MLP of what is dropped changes nothing
        close(logits, outputs(model, prompt, replace(by, before_mlp=False))[1])
    assert (logits - outputs(model, prompt, None)[1]).abs().max() > 1e-3  # pruning does change something

    plain = tiny_model(family, attn_implementation="eager")
    replayed = dense_replay(plain, layers_of(plain), tokens[:, :-1], recorder)
    close(logits[:, 0], replayed[prompt.shape[1] - 1 :])

    revived = 0
    for layer in range(4):
        computed = [token for step in recorder.computed for token in step[layer]]
        assert len(computed) == len(set(computed))
    for step, (computed, selected) in enumerate(zip(recorder.computed, recorder.selected, strict=True)):
        last = prompt.shape[1] - 1 + step
        keep, since = (PRUNED.keep, 0) if by is PRUNED else ((0.6, 1.0, 0.6), step)
        count = last + 1 - since
        for layer in range(4):
            assert len(set(selected[layer])) == len(selected[layer]) == count + since
            assert last in selected[layer]
            assert last in computed[layer]
            assert set(computed[layer]) <= set(selected[layer])
            assert layer == 0 or set(selected[layer]) <= set(selected[layer - 1])
            revived += sum(token < last for token in computed[layer]) if step else 0
            if layer < 3:
                count = math.ceil(keep[layer] * count - 1e-9)
    assert (revived > 0) == (by is PRUNED)


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    return next(
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == 4 and "expert" not in name
    )


def attachments(model: PreTrainedModel) -> list[Any]:
    """All that the engine could leave behind on a model."""
    return [
        (
            name,
            sorted(vars(module)),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._forward_hooks_with_kwargs),
            len(module._forward_pre_hooks_with_kwargs),
            getattr(getattr(module, "config", None), "_attn_implementation", None),
            {key: value for key, value in vars(module).items() if callable(value)},
        )
        for name, module in model.named_modules()
    ]


def library_functions() -> list[set[str]]:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return [set(ALL_ATTENTION_FUNCTIONS.valid_keys()), set(ALL_MASK_ATTENTION_FUNCTIONS.valid_keys())]


@pytest.mark.parametrize("family", in_turn(1))
def test_leaving_the_context_restores_the_model_bit_for_bit(family):
    model = shared_model(family)
    before, library = attachments(model), library_functions()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    plain_tokens, plain_logits = outputs(model, PROMPTS[1], None)

    outputs(model, PROMPTS[1], PRUNED)
    hook = layers_of(model)[2].register_forward_hook(broken(after=1))
    with pytest.raises(RuntimeError, match="broke here"):
        outputs(model, PROMPTS[0], PRUNED)
    hook.remove()

    assert attachments(model) == before
    assert library_functions() == library
    assert model.config.to_dict() == config
    assert all(tensor.equal(weights[name]) for name, tensor in model.state_dict().items())
    tokens, logits = outputs(model, PROMPTS[1], None)
    assert tokens.equal(plain_tokens)
    assert logits.equal(plain_logits)


def broken(after: int) -> Callable[..., None]:
    calls = []

    def hook(*_: Any) -> None:
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("broke here")

    return hook


@pytest.mark.parametrize("family", in_turn(2))
def test_generations_in_one_context_do_not_leak_into_each_other(family):
    model = shared_model(family)
    alone = [outputs(model, prompt, PRUNED)[1] for prompt in PROMPTS[:2]]
    with LazyLLM(model, PRUNED) as lazy:
        for turn in (0, 1, 0):
            logits = generate_logits(model, PROMPTS[turn], 8)[1]
            assert logits.equal(alone[turn])
            assert lazy.trace.prompt_tokens == PROMPTS[turn].shape[1]
            assert len(lazy.trace.steps) == 8
        hook = layers_of(model)[1].register_forward_hook(broken(after=2))
        with pytest.raises(RuntimeError, match="broke here"):
            generate_logits(model, PROMPTS[0], 8)
        hook.remove()
        assert generate_logits(model, PROMPTS[1], 8)[1].equal(alone[1])


@pytest.mark.parametrize("family", in_turn(3))
def test_a_beam_scores_what_its_tokens_score_alone(family):
    """Beams swap rows at every step: caches that did not follow would give another hypothesis's probabilities."""
    model = shared_model(family)
    batch, mask = left_padded(PROMPTS)
    with LazyLLM(model, PRUNED):
        beams = model.generate(
            batch,
            attention_mask=mask,
            max_new_tokens=8,
            num_beams=3,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        for row, prompt in enumerate(PROMPTS):
            written = beams.sequences[row, batch.shape[1] :]  # (8,)
            expected = log_probability(model, prompt, written) / len(written)
            torch.testing.assert_close(beams.sequences_scores[row], expected, rtol=0, atol=1e-3)


def log_probability(model: PreTrainedModel, prompt: Tensor, written: Tensor) -> Tensor:
    forced = [*prompt[0].tolist(), *written.tolist()]
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=len(written),
        do_sample=False,
        prefix_allowed_tokens_fn=lambda _, so_far: [forced[len(so_far)]],
        output_logits=True,
        return_dict_in_generate=True,
    )
    log_probabilities = torch.stack(out.logits, dim=1)[0].log_softmax(dim=-1)  # (8, vocabulary)
    return log_probabilities.gather(1, written[:, None]).sum()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_keeps_its_dtype(family, dtype):
    model = tiny_model(family, dtype)
    with LazyLLM(model, PRUNED) as lazy:
        logits = generate_logits(model, PROMPTS[0], 8)[1]
    assert lazy.trace.steps[0].computed == (17, 12, 9, 6)
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    plain, unpruned = outputs(model, PROMPTS[0], None)[1], outputs(model, PROMPTS[0], NOTHING_PRUNED)[1]
    assert (plain[0] - unpruned[0]).abs().max() < 0.05
