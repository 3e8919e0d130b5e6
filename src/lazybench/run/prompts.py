"""From a task's sample to what every method is asked."""

from __future__ import annotations

from dataclasses import replace

from lazybench.methods.request import Request
from lazybench.models import LoadedModel
from lazybench.run.config import RunConfig
from lazybench.tasks.base import Prompt, Sample, Task
from lazybench.tasks.prompting import generation_kwargs

# a draw of its own for every sample and repeat, the same in every process
SEED_STRIDE = 1_000


def encode(config: RunConfig, loaded: LoadedModel, task: Task, sample: Sample) -> Prompt:
    """The sample's prompt, its ids on the model's device.

    Raises:
        UserError: prompt and generation do not fit the model's window.
    """
    prompt = task.encode(loaded, sample, config.max_new_tokens or task.max_new_tokens)
    return replace(prompt, ids=prompt.ids.to(loaded.model.device))


def request_for(
    config: RunConfig, loaded: LoadedModel, task: Task, prompt: Prompt, index: int, repeat: int = 0
) -> Request:
    """What a method is asked: the prompt, the task's limits and a seed of its own. ``index``: of the sample."""
    limits = generation_kwargs(loaded, task)
    if config.max_new_tokens is not None:
        limits["max_new_tokens"] = config.max_new_tokens
        limits["min_new_tokens"] = min(limits.get("min_new_tokens") or 0, config.max_new_tokens)
    seed = (config.seed * SEED_STRIDE + index) * SEED_STRIDE + repeat
    return Request(
        loaded.model, loaded.tokenizer, prompt.ids, limits, seed, template=prompt.template, context=prompt.context
    )
