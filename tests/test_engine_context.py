"""The LazyLLM context: everything restored, nothing leaked, what can't run rightly refused."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from tiny_models import random_prompt, tiny_model
from transformers import DynamicCache, PreTrainedModel, StaticCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lazybench import LazyLLM, PruningSchedule, UserError

HALF = PruningSchedule(layers=(0, 2), keep=(0.6, 0.5))


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny_model("llama")


def state_of(model: PreTrainedModel) -> tuple:
    """Everything that attaching touches."""
    hooks = [
        (name, list(module._forward_pre_hooks), list(module._forward_hooks), sorted(module.__dict__))
        for name, module in model.named_modules()
    ]
    configs = [copy.deepcopy(module.config.__dict__) for module in model.modules() if hasattr(module, "config")]
    registries = sorted(ALL_ATTENTION_FUNCTIONS), sorted(ALL_MASK_ATTENTION_FUNCTIONS)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return hooks, configs, registries, sorted(weights), [weights[name].sum().item() for name in sorted(weights)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_leaving_restores_the_model_and_the_library(family):
    model = tiny_model(family)
    before = state_of(model)
    prompt = random_prompt(12, seed=0)
    plain = model.generate(prompt, max_new_tokens=5, do_sample=False)
    with LazyLLM(model, HALF):
        assert state_of(model) != before
        model.generate(prompt, max_new_tokens=5, do_sample=False)
    assert state_of(model) == before
    assert torch.equal(model.generate(prompt, max_new_tokens=5, do_sample=False), plain)


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_an_exception_restores_them_too(family):
    model = tiny_model(family)
    before = state_of(model)

    def fail(*_: object) -> None:
        raise RuntimeError("a layer failed")

    handle = [module for module in model.modules() if type(module).__name__.endswith("MLP")][-1].register_forward_hook(
        fail
    )
    with pytest.raises(RuntimeError, match="a layer failed"), LazyLLM(model, HALF):
        model.generate(random_prompt(12, seed=0), max_new_tokens=5)
    handle.remove()
    assert state_of(model) == before
    assert torch.overrides._len_torch_function_stack() == 0


def test_a_failed_entry_leaves_nothing_behind(model):
    before = state_of(model)
    with pytest.raises(UserError, match="out of range"), LazyLLM(model, PruningSchedule((3,), (0.5,))):
        pass
    with LazyLLM(model, HALF) as lazy:
        for again in (lazy, LazyLLM(model, HALF)):
            with pytest.raises(UserError, match="under LazyLLM already"):
                again.__enter__()
        model.generate(random_prompt(8, seed=0), max_new_tokens=2)
    assert state_of(model) == before
    with lazy:
        model.generate(random_prompt(8, seed=0), max_new_tokens=2)
    assert state_of(model) == before


def test_importing_changes_nothing():
    code = (
        "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as a\n"
        "from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as m\n"
        "before = sorted(a), sorted(m)\n"
        "import lazybench.pruning.engine\n"
        "assert (sorted(a), sorted(m)) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_models_may_run_side_by_side(model):
    other = tiny_model("llama", seed=1)
    prompt = random_prompt(12, seed=0)
    with LazyLLM(other, HALF):
        alone = other.generate(prompt, max_new_tokens=5, do_sample=False)
    with LazyLLM(other, HALF):
        with LazyLLM(model, HALF):
            model.generate(prompt, max_new_tokens=5, do_sample=False)
        assert torch.equal(other.generate(prompt, max_new_tokens=5, do_sample=False), alone)


def test_calls_in_one_context_know_nothing_of_each_other(model):
    long, short = random_prompt(30, seed=1), random_prompt(9, seed=2)
    kwargs = {"max_new_tokens": 6, "do_sample": False}
    with LazyLLM(model, HALF):
        alone = model.generate(short, **kwargs)
    with LazyLLM(model, HALF) as lazy:
        model.generate(long, **kwargs)
        assert lazy.trace.prompt_tokens == 30
        assert torch.equal(model.generate(short, **kwargs), alone)
        assert lazy.trace.prompt_tokens == 9


def refusal(model: PreTrainedModel, prompt: torch.Tensor, **kwargs: object) -> str:
    with pytest.raises(UserError) as error, LazyLLM(model, HALF):
        model.generate(prompt, max_new_tokens=4, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_calls_that_pruning_can_not_serve_are_refused(model):
    prompt = random_prompt(12, seed=0)
    assert "prefill_chunk_size" in refusal(model, prompt, prefill_chunk_size=4)
    assert "assisted" in refusal(model, prompt, prompt_lookup_num_tokens=3)
    assert "assisted" in refusal(model, prompt, assistant_model=tiny_model("llama", seed=1))
    assert "output_hidden_states" in refusal(model, prompt, output_hidden_states=True, return_dict_in_generate=True)
    assert "output_attentions" in refusal(
        tiny_model("llama", attn_implementation="eager"), prompt, output_attentions=True, return_dict_in_generate=True
    )
    assert "use_cache=True" in refusal(model, prompt, use_cache=False)
    assert "StaticCache" in refusal(model, prompt, cache_implementation="static")
    filled = DynamicCache(config=model.config)
    model(prompt, past_key_values=filled)
    assert "without LazyLLM" in refusal(model, torch.cat([prompt, prompt], dim=1), past_key_values=filled)
    assert "StaticCache" in refusal(model, prompt, past_key_values=StaticCache(config=model.config, max_cache_len=32))


def test_direct_calls_that_need_pruned_tokens_are_refused(model):
    prompt = random_prompt(12, seed=0)
    with LazyLLM(model, HALF):
        with pytest.raises(UserError, match="labels"):
            model(prompt, labels=prompt)
        with pytest.raises(UserError, match="logits_to_keep=0"):
            model(prompt)
        assert model(prompt, logits_to_keep=1).logits.shape[1] == 1
        with pytest.raises(UserError, match="padded on the left"):
            model(prompt.repeat(2, 1), attention_mask=torch.tensor([[1] * 12, [1] * 9 + [0] * 3]), logits_to_keep=1)
        model.train()
        with pytest.raises(UserError, match="training mode"):
            model(prompt, logits_to_keep=1)
        model.eval()


def test_a_prompt_longer_than_the_window_is_refused_before_it_runs(model):
    window = model.config.max_position_embeddings
    layers_run = []
    model.model.layers[0].register_forward_hook(lambda *_: layers_run.append(1))
    with LazyLLM(model, HALF), pytest.raises(UserError, match=f"the prompt has {window + 1} tokens, .* {window}"):
        model(random_prompt(window + 1, seed=0), logits_to_keep=1)
    assert not layers_run


def test_models_that_can_not_run_are_refused(model):
    for name, match in (("gpt_neo", "attention in its own way"), ("t5", "encoder-decoder")):
        with pytest.raises(UserError, match=match):
            LazyLLM(_other_model(name), HALF)
    with pytest.raises(UserError, match="language-modelling head"):
        LazyLLM(model.model, HALF)
    with pytest.raises(UserError, match="training mode"):
        LazyLLM(model.train(), HALF)
    mpt = tiny_model("mpt")
    assert "one prompt at a time" in refusal(mpt, random_prompt(8, seed=0).repeat(2, 1), use_cache=True)


def _other_model(name: str) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if name == "t5":
        config = AutoConfig.for_model("t5", vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
        return AutoModelForSeq2SeqLM.from_config(config).eval()
    kinds = [[["global", "local"], 2]]
    config = AutoConfig.for_model(
        "gpt_neo", vocab_size=64, hidden_size=16, num_layers=4, num_heads=4, attention_types=kinds
    )
    return AutoModelForCausalLM.from_config(config).eval()
