"""``dry_run=true``: what a run would do, with a forecast of its time and memory from the model's shape."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from math import ceil
from statistics import fmean

import torch
from transformers import PretrainedConfig

from lazybench.cli.tune import searched_method
from lazybench.methods.base import PolicyMethod
from lazybench.models.fit import GIB, weight_bytes
from lazybench.models.flops import full_prefill_flops
from lazybench.models.loading import device_of, dtype_of, quantized_as, shape_of
from lazybench.models.random_weights import cut_depth, random_model
from lazybench.pruning.layers import configs_of_layers
from lazybench.run.config import RunConfig
from lazybench.tasks import build_task

CHARACTERS_PER_TOKEN = 4  # about, of English prose and code
PROBE_TOKENS = 512
PROBED = (1, 3)  # layers: the difference is a layer's own time, the rest the head's and the embedding's


def dry_run(config: RunConfig) -> int:
    """Print what would run. Reads the task's data and the model's shape, no weights.

    Raises:
        UserError: data or shape out of reach; settings that this model or a search can't take.
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
    if config.tune is not None:
        searched_method(config)
        generations = config.tune.trials * ceil(len(lengths) / 2)
        print(f"  a search: {config.tune.trials} trials on every other sample")
    print(f"  {generations} generations in all{', fidelity included' if config.fidelity else ''}")
    if lengths:
        _forecast(config, shape, lengths, new_tokens, generations)
    return 0


def _forecast(
    config: RunConfig, shape: PretrainedConfig, lengths: list[int], new_tokens: int, generations: int
) -> None:
    """Time and memory as if every method took as long as the plain model, on this device as fast as it is now."""
    text = shape.get_text_config()
    for method in config.methods:
        if isinstance(method, PolicyMethod):
            method.policy(text).check_depth(text.num_hidden_layers)
    device = device_of(config.model.device)
    dtype = dtype_of(config.model.dtype, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    seconds_per_flop, step_s = _speed(shape, dtype, device, config.model.attention, max(lengths))
    prefill_s = fmean(full_prefill_flops(shape, length) for length in lengths) * seconds_per_flop
    rows = sum(
        (getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads)
        * (getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
        for layer in configs_of_layers(text)
    )
    longest = max(lengths) + new_tokens
    cache = 2 * rows * longest * dtype.itemsize
    weights = weight_bytes(shape, dtype, config.model.quantization)
    print(
        f"forecast, from a few layers of the model's shape as fast as this {device.type} runs them now; good to "
        "a factor of two:\n"
        f"  a prompt of about {round(fmean(lengths)):,} tokens (the mean): {_duration(prefill_s)} to its first token, "
        f"then up to {new_tokens} steps of {_duration(step_s)}\n"
        f"  all of it: {_duration(generations * (prefill_s + new_tokens * step_s))} if every method were as slow as "
        "the plain model and no answer ended early\n"
        f"  memory: {weights / GIB:.2f} GiB of weights, {cache / GIB:.2f} GiB of KV cache at {longest:,} tokens"
    )


def _speed(
    shape: PretrainedConfig, dtype: torch.dtype, device: torch.device, attention: str, context: int
) -> tuple[float, float]:
    """Seconds per FLOP of a prefill, and seconds of a decoding step of the whole model after ``context`` tokens."""
    steps = []
    for layers in PROBED:
        cut = copy.deepcopy(shape)
        cut_depth(cut, min(layers, shape.get_text_config().num_hidden_layers))
        model = random_model(cut, dtype, device, attention).eval()
        with torch.inference_mode():
            ids = torch.zeros(1, PROBE_TOKENS, dtype=torch.long, device=device)
            prefill_s = min(_seconds(functools.partial(model, ids, logits_to_keep=1)) for _ in range(2))
            cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
            for layer in cache.layers:  # only its length counts; one with a window keeps no more than that
                times = -(-max(0, context - PROBE_TOKENS) // layer.keys.shape[2])
                layer.update(layer.keys.repeat(1, 1, times, 1), layer.values.repeat(1, 1, times, 1))
            step = functools.partial(model, ids[:, :1], past_key_values=cache, use_cache=True)
            steps.append(min(_seconds(step) for _ in range(4)))
    of_layer = max(0.0, steps[1] - steps[0]) / (PROBED[1] - PROBED[0])
    whole_step = steps[0] + of_layer * (shape.get_text_config().num_hidden_layers - PROBED[0])
    return prefill_s / full_prefill_flops(cut, PROBE_TOKENS), whole_step


def _seconds(forward: Callable[[], object]) -> float:
    """Of a forward pass, to a number on the host: the device has finished then."""
    started = time.perf_counter()
    forward().logits[0, 0, 0].item()  # type: ignore[attr-defined]
    return time.perf_counter() - started


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.0f} ms"
