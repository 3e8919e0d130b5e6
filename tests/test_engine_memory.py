"""What the engine's buffers hold on to, and on which device they lie; a model that a device map spreads."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch
from weakref import ref

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from tiny_models import generate_logits, left_padded, random_prompt, shared_model, tiny_model
from torch import Tensor
from torch._subclasses import FakeTensorMode
from transformers import AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from lazybench import LazyLLM, PruningSchedule
from lazybench.pruning import stage
from lazybench.pruning.budgets import Ratio, Revival
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy

PRUNED = PruningSchedule(layers=(0, 1, 2), keep=(0.7, 0.6, 0.7))
NEVER_REVIVED = Policy((1,), budget=(Ratio(0.4),))
PROMPT = random_prompt(20, seed=3)
SWITCH = GenerationMixin._optimize_model_for_decode


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama")


def buffers_of(cache: LazyCache) -> list[Tensor]:
    """Every tensor that the cache keeps from one step to the next."""
    held, seen, tensors = [cache], {}, []
    while held:
        item = held.pop()
        if isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, dict | list | tuple) or type(item).__module__.startswith("lazybench"):
            held += [inner for inner in gc.get_referents(item) if seen.setdefault(id(inner), inner) is inner]
    return tensors


def decode(model: PreTrainedModel, mode: Callable[[int], AbstractContextManager]) -> tuple[Tensor, LazyCache]:
    """Greedy steps by hand, step ``i`` under ``mode(i)``: (steps, vocabulary) logits and the cache."""
    cache, tokens, rows = None, PROMPT, []
    for step in range(8):
        with mode(step):
            output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = output.past_key_values, output.logits[0, -1].detach().clone()
        tokens = logits.argmax()[None, None]
        rows.append(logits)
    return torch.stack(rows), cache


@pytest.mark.parametrize(
    "modes",
    [
        (torch.enable_grad,),
        (torch.inference_mode, torch.no_grad),
        (torch.no_grad, torch.inference_mode, torch.enable_grad),
    ],
)
def test_steps_outside_no_grad_and_in_inference_mode_leave_nothing_behind(model, modes):
    with LazyLLM(model, PRUNED):
        expected, _ = decode(model, lambda step: torch.no_grad())
        measured, cache = decode(model, lambda step: modes[step % len(modes)]())
    torch.testing.assert_close(measured, expected)
    buffers = buffers_of(cache)
    assert len(buffers) > 8
    assert not any(buffer.is_inference() or buffer.requires_grad or buffer.grad_fn is not None for buffer in buffers)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bloom"])
def test_the_caches_go_when_the_generation_is_over(family):
    """Whatever a later run measured would stand on their bytes else."""
    model = tiny_model(family)
    gc.collect()
    gc.disable()  # they go by their last reference, not by a collection that a clock keeps off
    try:
        with LazyLLM(model, PRUNED):
            held = ref(model.generate(PROMPT, max_new_tokens=3, return_dict_in_generate=True).past_key_values)
        assert held() is None
    finally:
        gc.enable()


# ---- rows that buffers allocate


@pytest.mark.parametrize("options", [{}, {"revive": False}, {"revival": Revival(most=8, attend="computed")}], ids=str)
@pytest.mark.parametrize("prompts", [1, 2])
def test_buffers_hold_little_more_than_what_their_stage_holds(options, prompts):
    model = tiny_model("llama", max_position_embeddings=4096)
    prompt = torch.cat([random_prompt(1500, seed) for seed in range(prompts)])
    schedule = PruningSchedule((0, 1, 2), (0.7, 0.6, 0.7), **options)
    with LazyLLM(model, schedule) as lazy:
        for new_tokens in (1, 40):
            model.generate(prompt, max_new_tokens=new_tokens, do_sample=False)
            cache = lazy._cache
            for layer in range(4):
                (buffer,) = cache.arena(layer)._buffers  # (keys and values, layers, batch, kv_heads, slots, head_dim)
                assert max(cache.stages[layer].held) < buffer.shape[4] <= 1.25 * max(cache.stages[layer].held) + 256
    held = [sum(cache.stages[layer].held) for layer in range(4)]
    assert lazy.trace.kv_bytes[-1] == sum(held) * 2 * 2 * 8 * 4  # keys and values, two heads of eight float32
    if schedule.revive:
        assert set(cache._aux) == {torch.device("cpu")}
        assert lazy.trace.aux_bytes[-1] == (held[0] - held[3]) * 32 * 4
    else:
        assert not cache._aux
        assert not cache.inputs._rows
        assert not any(lazy.trace.aux_bytes)


def cache_after(model: PreTrainedModel, context: AbstractContextManager, new_tokens: int) -> LazyCache | DynamicCache:
    prompt, limits = random_prompt(200, seed=1), {"max_new_tokens": new_tokens, "do_sample": False}
    with context:
        return model.generate(prompt, return_dict_in_generate=True, **limits).past_key_values


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
@pytest.mark.parametrize("new_tokens", [1, 40])
@pytest.mark.parametrize("policy", [Policy(), NEVER_REVIVED], ids=["nothing pruned", "pruned"])
def test_a_layer_with_a_window_holds_no_more_than_it_where_nothing_comes_back(family, new_tokens, policy):
    model = tiny_model(family, sliding_window=32, max_position_embeddings=512)
    plain = [layer.keys.shape[2] for layer in cache_after(model, nullcontext(), new_tokens).layers]
    cache = cache_after(model, Pruned(model, policy), new_tokens)
    windowed = [rows == 32 - 1 for rows in plain]
    assert any(windowed)
    for layer, rows in enumerate(plain):
        arena = cache.arena(layer)
        held = cache._stage_of_layer[layer].end - arena.forgotten
        assert held <= (rows * 9 // 8 if windowed[layer] else rows)
        assert arena._buffers[0].shape[4] <= held + held // 8 + 17 if arena.forgotten else rows + rows // 8 + 17
    row_bytes = cache.arena(0).bytes_per_slot
    assert cache.kv_bytes <= sum(rows + rows // 8 for rows in plain) * row_bytes


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "falcon"])
def test_rows_that_revive_different_numbers_leave_no_nan_in_the_cache(family):
    model = shared_model(family)
    with LazyLLM(model, PRUNED) as lazy:
        generate_logits(model, torch.cat([random_prompt(20, seed) for seed in (3, 4, 5)]), 8)
        cache = lazy._cache
    assert all(buffer.isfinite().all() for layer in range(4) for buffer in cache.arena(layer)._buffers)


# ---- mixtures of experts


@contextmanager
def decode_as_on_a_gpu(model: PreTrainedModel) -> Iterator[None]:
    """transformers' own switch of the expert kernel, which looks whether the model lies on a CPU."""
    switch = SWITCH(model)
    with patch.object(type(model), "device", torch.device("cuda")):
        switch.__enter__()
    yield
    switch.__exit__(None, None, None)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_keep_the_kernel_whose_memory_does_not_grow_with_revived_tokens(family, monkeypatch):
    model = tiny_model(family)
    model.set_experts_implementation("grouped_mm")
    used = []
    for name in ("batched_mm", "grouped_mm"):

        def noted(*args: object, name: str = name, kernel: Callable = ALL_EXPERTS_FUNCTIONS[name]) -> Tensor:
            used.append(name)
            return kernel(*args)

        monkeypatch.setitem(ALL_EXPERTS_FUNCTIONS._global_mapping, name, noted)
    monkeypatch.setattr(type(model), "_optimize_model_for_decode", decode_as_on_a_gpu)
    plain = model.generate(PROMPT, max_new_tokens=4, do_sample=False)
    assert used == ["grouped_mm"] * 4 + ["batched_mm"] * 12
    used.clear()
    with LazyLLM(model, PRUNED) as lazy:
        model.generate(PROMPT, max_new_tokens=4, do_sample=False)
    assert any(sum(step.revived) for step in lazy.trace.steps)
    assert used == ["grouped_mm"] * 16
    assert model.config._experts_implementation == "grouped_mm"
    used.clear()
    assert torch.equal(model.generate(PROMPT, max_new_tokens=4, do_sample=False), plain)
    assert used == ["grouped_mm"] * 4 + ["batched_mm"] * 12
    for chosen in ("eager", "batched_mm"):  # by name: it stays
        model.set_experts_implementation(chosen)
        with LazyLLM(model, PRUNED):
            model.generate(PROMPT, max_new_tokens=2, do_sample=False)
            assert model.config._experts_implementation == chosen


# ---- several devices


def spread_over_two_devices(model: PreTrainedModel) -> PreTrainedModel:
    """``model`` as a device map spreads it, layers 0 and 1 on one device, 2 and 3 on another.

    FakeTensorMode makes the devices up; of all types, "lazy" is the one that needs no driver and has indices.
    """
    decoder = model.model
    places = dict.fromkeys((decoder.embed_tokens, decoder.rotary_emb, *decoder.layers[:2]), "lazy:0")
    places |= dict.fromkeys((*decoder.layers[2:], decoder.norm, model.lm_head), "lazy:1")
    for module, device in places.items():
        for part in module.modules():  # Module.to can't swap fake tensors in place
            for tensors in (part._parameters, part._buffers):
                tensors.update({name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})
        add_hook_to_module(module, AlignDevicesHook(torch.device(device)))
    return model


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("schedule", [PRUNED, PruningSchedule((1, 2), (0.5, 0.5))])
@pytest.mark.parametrize("padded", [False, True], ids=["alike", "padded"])
def test_every_buffer_lies_where_the_layer_that_uses_it_lies(family, schedule, padded, monkeypatch):
    def begin(cache: LazyCache, batch: int, tokens: int, *_: object) -> stage.Plan:
        cache.prompt_end, cache.candidates = tokens, [tokens, tokens - 3, tokens - 5]
        position = torch.arange(tokens, device="lazy:0").expand(batch, -1)
        return cache.stages[0].begin(position, cache.candidates)

    # fake tensors have no values to read: say how many tokens are padding, that the prefill kept the first tokens,
    # and that the decoding step chooses the newest
    def kept_and_chosen(kept: Tensor, chosen: Tensor) -> tuple[list[list[int]], list[list[int]]]:
        moved.append(chosen.shape[1] < 21)
        return [list(range(kept.shape[1]))] * 3, [list(range(20, 20 - chosen.shape[1], -1))] * 3

    moved: list[bool] = []
    if padded:
        monkeypatch.setattr(LazyCache, "begin", begin)
    monkeypatch.setattr(stage, "_on_the_host", kept_and_chosen)
    monkeypatch.setattr(
        torch, "frombuffer", lambda buffer, dtype: torch.tensor(list(buffer), dtype=dtype)
    )  # a fake one
    config = tiny_model(family).config
    with FakeTensorMode(), torch.no_grad():
        model = spread_over_two_devices(AutoModelForCausalLM.from_config(config).eval())
        prompt = torch.ones(3, 20, dtype=torch.long, device="lazy:0")
        with LazyLLM(model, schedule):
            cache = model(prompt, use_cache=True, logits_to_keep=1).past_key_values
            logits = model(prompt[:, :1], past_key_values=cache).logits
    assert logits.device == torch.device("lazy:1")
    assert moved == [True] * len(schedule.layers)
    for layer in range(4):
        expected = torch.device("lazy", layer // 2)
        assert {buffer.device for buffer in cache.arena(layer)._buffers} == {expected}
    assert cache._aux.keys() == {torch.device("lazy", layer // 2) for layer in schedule.layers}
    assert {buffer.device for buffer in cache.inputs._rows.values()} == {torch.device("lazy:0")}  # the layers move them


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("padded", [False, True], ids=["one prompt", "padded batch"])
def test_layers_kept_on_disk_give_what_layers_in_memory_give(family, padded, tmp_path):
    whole = tiny_model(family)
    whole.save_pretrained(tmp_path / "model")
    layer_names = [name for name, module in whole.named_modules() if name.endswith((".0", ".1", ".2", ".3"))]
    places = {name: "disk" if name.endswith((".1", ".2")) else "cpu" for name in layer_names}
    stem = layer_names[0].removesuffix(".0")
    for name, _ in whole.named_parameters(remove_duplicate=False):
        if not name.startswith(f"{stem}."):
            places[name.rsplit(".", 1)[0]] = "cpu"
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model",
        device_map=places,
        offload_folder=tmp_path / "offload",
        dtype=torch.float32,
        attn_implementation=whole.config._attn_implementation,
    ).eval()
    assert any(weight.device.type == "meta" for weight in spread.parameters())
    prompts, mask = left_padded([PROMPT, random_prompt(14, seed=9)]) if padded else (PROMPT, None)
    for schedule in (PruningSchedule((0, 2), (0.6, 0.5)), PruningSchedule((), ())):
        with LazyLLM(whole, schedule):
            expected = generate_logits(whole, prompts, 5, attention_mask=mask)[1]
        with LazyLLM(spread, schedule):
            measured = generate_logits(spread, prompts, 5, attention_mask=mask)[1]
        torch.testing.assert_close(measured, expected)
