"""What runs inside the context: every way to generate, and the trace of what it computed."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    MaxTimeCriteria,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
    TextGenerationPipeline,
    TextIteratorStreamer,
)

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning.cache import LazyCache

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
NOTHING_PRUNED = PruningSchedule(layers=(0, 2), keep=(1.0, 1.0))
PROMPT = random_prompt(20, seed=3)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(128)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", padding_side="left", model_max_length=256)


def test_no_token_is_computed_twice_in_a_layer_and_selections_nest(model, monkeypatch):
    computed: dict[int, list[int]] = {layer: [] for layer in range(4)}
    store = LazyCache.update

    def noted(cache: LazyCache, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *rest: object):
        plan = cache.step.plan
        computed[layer_idx] += plan.current[0].tolist()
        selected[layer_idx] = set(plan.selected[0].tolist())
        if layer_idx:
            assert selected[layer_idx] <= selected[layer_idx - 1]
        assert cache.step.tokens - 1 in selected[layer_idx]  # the last token stays
        assert set(plan.current[0].tolist()) <= selected[layer_idx] <= set(computed[layer_idx])
        return store(cache, keys, values, layer_idx, *rest)

    selected: dict[int, set[int]] = {}
    monkeypatch.setattr(LazyCache, "update", noted)
    with LazyLLM(model, PRUNED) as lazy:
        model.generate(PROMPT, max_new_tokens=12, do_sample=False)
    for layer, tokens in computed.items():
        assert len(tokens) == len(set(tokens)), f"layer {layer}"
    # the trace tells the same: four stages of one layer each
    totals = [sum(step.computed[stage] for step in lazy.trace.steps) for stage in range(4)]
    assert totals == [len(computed[layer]) for layer in range(4)]
    assert any(sum(step.revived) for step in lazy.trace.steps[1:])


def test_the_trace_adds_up(model):
    with LazyLLM(model, PRUNED) as lazy:
        model.generate(PROMPT, max_new_tokens=6, do_sample=False)
    trace = lazy.trace
    assert trace.stages == (range(1), range(1, 2), range(2, 3), range(3, 4))
    assert trace.prompt_tokens == 20
    prefill, *decoding = trace.steps
    assert prefill.computed == prefill.selected == (20, 14, 9, 7)  # ceil of 0.7, 0.6 and 0.7 of what entered
    assert prefill.revived == (0, 0, 0, 0)
    assert len(decoding) == 5
    for number, step in enumerate(decoding, start=21):
        assert step.selected[0] == number
        assert step.computed == tuple(1 + revived for revived in step.revived)
    shares = trace.prompt_tokens_computed
    assert shares[0] == (1.0, 0.7, 0.45, 0.35)
    assert all(after >= before for a, b in itertools.pairwise(shares) for before, after in zip(a, b, strict=True))
    assert all(1.0 >= early >= late for row in shares for early, late in itertools.pairwise(row))
    assert trace.prompt_tokens_computed_by_stage == shares[-1]
    assert trace.prompt_tokens_computed_mean == pytest.approx(sum(shares[-1]) / 4)


def test_pruned_for_good_revives_nothing(model):
    schedule = PruningSchedule(PRUNED.layers, PRUNED.keep, revive=False)
    prompts, mask = left_padded([PROMPT, random_prompt(13, seed=4)])
    with LazyLLM(model, schedule) as lazy:
        alone = [generate_logits(model, prompt, 6)[1] for prompt in (PROMPT, random_prompt(13, seed=4))]
        together = generate_logits(model, prompts, 6, attention_mask=mask)[1]
    assert not any(sum(step.revived) for step in lazy.trace.steps)
    for row in (0, 1):
        torch.testing.assert_close(together[:, row], alone[row][:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_keeps_the_plain_models_logits(dtype):
    model = tiny_model("llama", dtype=dtype)
    plain = generate_logits(model, PROMPT, 1)[1]
    with LazyLLM(model, NOTHING_PRUNED):
        kept = generate_logits(model, PROMPT, 1)[1]
    torch.testing.assert_close(kept, plain, atol=0.05, rtol=0.05)
    with LazyLLM(model, PRUNED) as lazy:
        _, logits = generate_logits(model, PROMPT, 6)
    assert logits.isfinite().all()
    assert lazy.trace.steps[0].computed == (20, 14, 9, 7)


def test_sampling_repeats_with_its_seed(model):
    def sample(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.generate(PROMPT, max_new_tokens=10, do_sample=True, num_return_sequences=3)

    with LazyLLM(model, PRUNED):
        first = sample(0)
        assert torch.equal(first, sample(0))
        assert not torch.equal(first, sample(1))
    torch.manual_seed(0)
    with LazyLLM(model, NOTHING_PRUNED):
        kept = model.generate(PROMPT, max_new_tokens=10, do_sample=True)
    torch.manual_seed(0)
    assert torch.equal(kept, model.generate(PROMPT, max_new_tokens=10, do_sample=True))


def test_beam_search_without_pruning_is_the_plain_models(model):
    prompts, mask = left_padded([PROMPT, random_prompt(13, seed=4)])
    beams = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False, "attention_mask": mask}
    with LazyLLM(model, NOTHING_PRUNED):
        kept = model.generate(prompts, **beams)
    assert torch.equal(kept, model.generate(prompts, **beams))


def test_a_conversation_goes_on_with_the_returned_cache(model):
    with LazyLLM(model, PRUNED) as lazy:
        first = model.generate(PROMPT, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        longer = torch.cat([first.sequences, random_prompt(9, seed=5)], dim=1)
        second = model.generate(longer, max_new_tokens=4, do_sample=False, past_key_values=first.past_key_values)
        assert second.shape[1] == 20 + 4 + 9 + 4
        # the last generated token had not been run yet: it comes with the new prompt
        assert [step.new for step in lazy.trace.steps] == [20, 1, 1, 1, 10, 1, 1, 1]
    with LazyLLM(model, NOTHING_PRUNED):
        first = model.generate(PROMPT, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        longer = torch.cat([first.sequences, random_prompt(9, seed=5)], dim=1)
        second = model.generate(longer, max_new_tokens=4, do_sample=False, past_key_values=first.past_key_values)
    assert torch.equal(second, model.generate(longer, max_new_tokens=4, do_sample=False))


def test_streamer_stopping_criteria_and_pipeline(model, tokenizer):
    text = " ".join(f"w{token}" for token in PROMPT[0].tolist())
    with LazyLLM(model, PRUNED):
        tokens = model.generate(PROMPT, max_new_tokens=6, do_sample=False)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
        model.generate(PROMPT, max_new_tokens=6, do_sample=False, streamer=streamer)
        assert "".join(streamer).split() == tokenizer.decode(tokens[0, 20:]).split()
        stop = StoppingCriteriaList([MaxTimeCriteria(max_time=0.0)])
        assert model.generate(PROMPT, max_new_tokens=6, stopping_criteria=stop).shape[1] == 21
        pipeline = TextGenerationPipeline(model=model, tokenizer=tokenizer)
        outputs = pipeline([text, text], batch_size=2, max_new_tokens=6, do_sample=False, return_full_text=False)
    for output in outputs:
        assert output[0]["generated_text"].split() == tokenizer.decode(tokens[0, 20:], skip_special_tokens=True).split()


def test_a_long_generation_outgrows_its_buffers(model):
    prompt = random_prompt(8, seed=6)
    with LazyLLM(model, NOTHING_PRUNED):
        kept = generate_logits(model, prompt, 180)[1]
    torch.testing.assert_close(kept, generate_logits(model, prompt, 180)[1], atol=1e-4, rtol=1e-4)
    both, mask = left_padded([prompt, random_prompt(5, seed=7)])
    with LazyLLM(model, PRUNED):
        alone = generate_logits(model, prompt, 180)[1]
        together = generate_logits(model, both, 180, attention_mask=mask)[1]
    torch.testing.assert_close(together[:20, 0], alone[:20, 0], atol=1e-4, rtol=1e-4)
    assert together.isfinite().all()
