"""From a sample to token ids and generation limits, as LongBench's pred.py does it.

Source: THUDM/LongBench, commit 2e00731, pred.py, ``get_pred``. Deviations: docs/longbench_protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Sample, Task


def encode_prompt(loaded: LoadedModel, task: Task, sample: Sample) -> torch.Tensor:
    """The prompt's token ids: cut in the middle, then put into the chat format where the task has one.

    The limit is LongBench's length for the model, or the window less the generation. It holds for the prompt
    before the chat format; where the whole then exceeds the window, the limit shrinks until it fits.
    A task with an ``encode`` of its own builds its prompt to a length instead (RULER), and one with a ``truncate``
    cuts in its benchmark's way (LongBench v2).

    Returns:
        Token ids, long, on the CPU.  # (1, prompt_tokens)

    Raises:
        UserError: the window cannot hold the generation and a prompt.
    """
    if (encode := getattr(task, "encode", None)) is not None:
        return cast(torch.Tensor, encode(loaded, sample))
    cut: Callable[[PreTrainedTokenizerBase, str, int], str] = getattr(task, "truncate", truncate_middle)
    window = loaded.window_tokens - task.max_new_tokens
    limit = min(loaded.spec.prompt_limit_tokens or window, window)
    while True:
        if limit < 2:
            raise UserError(
                f"task={task.name} generates {task.max_new_tokens} tokens, too many for the window of "
                f"{loaded.window_tokens} tokens of model {loaded.spec.name}"
            )
        ids = token_ids(loaded, cut(loaded.tokenizer, sample.prompt, limit), task.chat_format)
        if len(ids) <= window:
            return torch.tensor([ids])
        limit -= len(ids) - window


def truncate_middle(tokenizer: PreTrainedTokenizerBase, prompt: str, limit: int) -> str:
    """The first and the last ``limit // 2`` tokens of a longer prompt, decoded; a shorter prompt as it is."""
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) <= limit:
        return prompt
    half = limit // 2
    first, last = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:]))
    return str(first) + str(last)


def generation_kwargs(loaded: LoadedModel, task: Task) -> dict[str, Any]:
    """What ``model.generate`` gets: greedy decoding, the task's limits and what ends the generation."""
    tokenizer = loaded.tokenizer
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    if configured is None:
        configured = tokenizer.eos_token_id
    ends = [configured] if isinstance(configured, int) else list(configured or [])
    if task.stop_at_newline:
        ends.append(tokenizer.encode("\n", add_special_tokens=False)[-1])
    padding = tokenizer.pad_token_id
    kwargs: dict[str, Any] = {
        "max_new_tokens": task.max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "eos_token_id": ends or None,
        "pad_token_id": padding if padding is not None else next(iter(ends), 0),
    }
    if task.min_new_tokens:
        kwargs["min_new_tokens"] = task.min_new_tokens
    if stop_strings := getattr(task, "stop_strings", ()):
        kwargs |= {"stop_strings": list(stop_strings), "tokenizer": tokenizer}
    return kwargs


def token_ids(loaded: LoadedModel, prompt: str, chat_format: bool, answer_prefix: str = "") -> list[int]:
    """A prompt's ids as the model gets them.

    Args:
        chat_format: put the prompt into the model's chat format.
        answer_prefix: begins the answer, after the chat format.
    """
    tokenizer = loaded.tokenizer
    text = (loaded.wrap_chat(prompt) if chat_format else prompt) + answer_prefix
    begins = chat_format and tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    # a chat template that writes the beginning-of-sequence token itself must not get a second one
    return list(tokenizer(text, truncation=False, add_special_tokens=not begins, verbose=False).input_ids)
