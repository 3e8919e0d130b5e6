"""``dry_run=true``: what a run would do, with its work and memory from the model's shape."""

from __future__ import annotations

import copy
import time
from datetime import timedelta
from statistics import fmean

import torch
from transformers import PretrainedConfig, PreTrainedModel

from lazybench.measure.clock import synchronizer
from lazybench.methods.base import PolicyMethod
from lazybench.models.fit import GIB, weight_bytes
from lazybench.models.flops import full_prefill_flops
from lazybench.models.loading import device_of, dtype_of, quantized_as, shape_of
from lazybench.models.random_weights import cut_depth, random_model
from lazybench.pruning.layers import cache_of
from lazybench.run.config import RunConfig
from lazybench.tasks import build_task

CHARACTERS_PER_TOKEN = 4  # about, of English prose and code
PROBED_TOKENS = 512


def dry_run(config: RunConfig) -> int:
    """Print what would run. Reads the task's data and the model's shape, no weights.

    Raises:
        UserError: data or shape out of reach; settings that this model can't take.
    """
    shape = shape_of(config.model)
    name = config.model.display_name(quantized_as(config.model, shape))
    print(f"would run {config.task_name} on {name}, into {config.out}")
    lengths: list[int] = []  # of the prompts, in tokens
    new_tokens = 0
    for name in config.datasets:
        task = build_task(name, config.data)
        samples = task.samples()
        limit = config.model.prompt_limit_tokens
        exact = getattr(task, "prompt_tokens", None)  # tasks of a fixed length
        about = [exact or len(sample.prompt) // CHARACTERS_PER_TOKEN for sample in samples]
        lengths += [min(tokens, limit) if limit and not exact else tokens for tokens in about]
        new_tokens = max(new_tokens, config.max_new_tokens or task.max_new_tokens)
        print(f"  {name}: {len(samples)} samples")
    timed = 0
    for method in config.methods:
        repeats = max(config.repeats, method.repeats)
        timed += repeats
        runs = f"{repeats} {'timed ' * config.timing}run{'s' * (repeats > 1)}"
        print(f"  {f'{method.name} {method.label}'.strip()}: {runs} of each sample")
    # without a clock fidelity is the run itself; its score may take another
    passes = timed * (2 if config.fidelity and config.timing else 1) + (1 if config.fidelity else 0)
    generations = passes * len(lengths) + config.warmup * len(config.methods) * config.timing
    print(f"  {generations} generations in all{', fidelity included' if config.fidelity else ''}")
    if lengths:
        _forecast(config, shape, lengths, new_tokens, generations)
    return 0


def _forecast(
    config: RunConfig, shape: PretrainedConfig, lengths: list[int], new_tokens: int, generations: int
) -> None:
    """Work and memory as if every method computed as much as the plain model."""
    text = shape.get_text_config()
    for method in config.methods:
        if isinstance(method, PolicyMethod):
            method.policy(text).check_depth(text.num_hidden_layers)
    device = device_of(config.model.device)
    dtype = dtype_of(config.model.dtype, device)
    cut_depth(layer_alone := copy.deepcopy(shape), 1)
    one_layer = random_model(layer_alone, dtype, device, config.model.attention)  # refuses an attention not here
    flops_per_s, cache_of_token = _probe(one_layer, min(max(lengths), PROBED_TOKENS))
    longest = max(lengths) + new_tokens
    cache = text.num_hidden_layers * cache_of_token * longest
    weights = weight_bytes(shape, dtype, config.model.quantization)
    prefill = fmean(full_prefill_flops(shape, length) for length in lengths)
    expected = timedelta(seconds=round(generations * prefill / flops_per_s))
    print(
        f"  prompts of about {round(fmean(lengths)):,} tokens, {prefill / 1e12:.2f} TFLOP each in the plain model\n"
        f"  {generations * prefill / 1e12:,.0f} TFLOP in all, and up to {new_tokens} decoding steps after each prompt\n"
        f"  about {expected} for the prefills, at {flops_per_s / 1e12:.3g} TFLOP/s as measured on one layer here\n"
        f"  memory: {weights / GIB:.2f} GiB of weights, {cache / GIB:.2f} GiB of KV cache at {longest:,} tokens"
    )


def _probe(one_layer: PreTrainedModel, tokens: int) -> tuple[float, float]:
    """FLOPs a second, and bytes of KV cache a token, of a prefill of that many tokens by a model's one layer; it is run
    twice: the first time warms up.
    """
    wait = synchronizer(one_layer.device)
    prompt = torch.zeros((1, tokens), dtype=torch.long, device=one_layer.device)
    for _ in range(2):
        wait()
        started = time.perf_counter()
        with torch.no_grad():
            (layer,) = cache_of(one_layer.base_model(prompt)).layers
        wait()
    seconds = time.perf_counter() - started
    held = layer.keys.shape[2]  # a sliding window's alone
    return full_prefill_flops(one_layer.config, tokens) / seconds, (layer.keys.nbytes + layer.values.nbytes) / held
