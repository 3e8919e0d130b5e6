"""From a sample to token ids and generation limits, as LongBench's pred.py does it.

Source: THUDM/LongBench, commit 2e00731, pred.py, ``get_pred``. Deviations: docs/tasks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.models.chat import wrap
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt, Sample, Task

Halves = Callable[[PreTrainedTokenizerBase, str, int], tuple[str, str]]


class OfficialPrompt(Task):
    """A task whose prompts are a text, cut in the middle where it is too long."""

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        return encode_prompt(loaded, self, sample, new_tokens)


def halves(tokenizer: PreTrainedTokenizerBase, prompt: str, limit: int) -> tuple[str, str]:
    """The first and the last ``limit // 2`` tokens of a longer prompt, each decoded; a shorter prompt and nothing."""
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) <= limit:
        return prompt, ""
    half = limit // 2
    first, last = (tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:]))
    return str(first), str(last)


def encode_prompt(loaded: LoadedModel, task: Task, sample: Sample, new_tokens: int, halves: Halves = halves) -> Prompt:
    """The prompt's tokens: cut in the middle, then put into the chat format where the task has one.

    The limit is LongBench's length for the model, or the window less the generation. It holds for the prompt
    before the chat format; where the whole then exceeds the window, the limit shrinks until it fits.

    Args:
        halves: what remains of a prompt that is longer than so many tokens, its begin and its end.

    Raises:
        UserError: the window cannot hold the generation and a prompt.
    """
    window = loaded.window_tokens - new_tokens
    limit = min(loaded.spec.prompt_limit_tokens or window, window)
    while limit >= 2:
        text, context = _cut_middle(sample, *halves(loaded.tokenizer, sample.prompt, limit))
        prompt = encode_text(loaded, text, context, task.chat_format)
        if (surplus := prompt.ids.shape[1] - window) > 0:
            limit -= surplus
        elif text == sample.prompt:
            return prompt
        else:
            whole = encode_text(loaded, sample.prompt, None, task.chat_format)
            return Prompt(prompt.ids, prompt.template, prompt.context, truncated_from=whole.ids.shape[1])
    raise UserError(
        f"max_new_tokens={new_tokens} of task={task.name} leaves no room for a prompt in the window of "
        f"{loaded.window_tokens} tokens of model {loaded.spec.name}; choose fewer, as in max_new_tokens=64"
    )


def truncate_middle(tokenizer: PreTrainedTokenizerBase, prompt: str, limit: int) -> str:
    """The first and the last ``limit // 2`` tokens of a longer prompt; a shorter prompt as it is."""
    first, last = halves(tokenizer, prompt, limit)
    return first + last


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
    if task.stop_strings:
        kwargs |= {"stop_strings": list(task.stop_strings), "tokenizer": tokenizer}
    return kwargs


def tokens_of(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    user: range,
    context: range | None,
    add_special_tokens: bool = True,
) -> Prompt:
    """A text's tokens, told apart by their characters; what lies across a border belongs to what is around.

    Args:
        user: characters of the text that are the sample's; the others are the chat format's.
        context: characters that are the document's.

    Raises:
        UserError: the tokenizer is one of the few that don't say which characters a token stands for.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} does not say which characters its tokens stand for; "
            "give model.path=FOLDER with a tokenizer.json"
        )
    encoded = tokenizer(
        text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, truncation=False, verbose=False
    )
    offsets = torch.tensor(encoded.offset_mapping, dtype=torch.long).reshape(-1, 2)  # (prompt_tokens, start and end)

    def within(characters: range) -> torch.Tensor:
        starts, ends = offsets.unbind(1)
        return (starts >= characters.start) & (ends <= characters.stop) & (ends > starts)  # (prompt_tokens,)

    of_context = None if context is None else within(context)
    return Prompt(torch.tensor([encoded.input_ids], dtype=torch.long), ~within(user), of_context)


def encode_text(loaded: LoadedModel, prompt: str, context: range | None, chat_format: bool) -> Prompt:
    """A prompt's tokens as the model gets them, whatever their number.

    Args:
        context: characters of the prompt that are the document's.
        chat_format: put the prompt into the model's chat format.
    """
    wrapped, user = wrap(loaded.wrap_chat, prompt) if chat_format else (prompt, range(len(prompt)))
    if context is not None:  # a template that strips white space moves the rest
        lead = max(prompt.find(wrapped[user.start : user.stop]), 0)
        shift = user.start - lead
        context = range(max(context.start + shift, user.start), min(context.stop + shift, user.stop))
    # a chat template that writes the beginning-of-sequence token itself must not get a second one
    bos = loaded.tokenizer.bos_token
    begins = chat_format and bos is not None and wrapped.startswith(bos)
    return tokens_of(loaded.tokenizer, wrapped, user, context, add_special_tokens=not begins)


def _cut_middle(sample: Sample, first: str, last: str) -> tuple[str, range | None]:
    """The text that remains, and where the context stands then: counted from the start and from the end."""
    text, context = first + last, sample.context
    if not context or text == sample.prompt:  # nowhere, or nothing
        return text, context
    start = min(context.start, len(first))
    return text, range(start, max(start, len(text) - min(len(sample.prompt) - context.stop, len(last))))
