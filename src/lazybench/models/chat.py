"""Chat formats: LongBench's own for Llama 2 and XGen (its pred.py, build_chat), else the tokenizer's template."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError, library_errors

XGEN_HEADER = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.\n\n"
)
# the date of every prompt whose template asks for one: a sample has one prompt on all days. Llama's own default.
CHAT_DATE = datetime(2024, 7, 26)
_DIRECTIVES = [f"%{flag}{letter}" for letter in "aAbBcCdDeFfGhHIjklmMpPrRStTuUVwWxXyYzZ" for flag in ("", "-")]
_PINNED_CLOCK = (  # transformers hands a template no functions, so the one that tells the time is written in Jinja
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f".replace({directive!r}, {CHAT_DATE.strftime(directive)!r})" for directive in _DIRECTIVES)
    + " }}{%- endmacro +%}"
)
WITHOUT = "model.chat_format=none sends prompts as they are"
NO_USER_TEXT = "\ue000"  # a private character: no prompt begins or ends with it


def chat_wrapper(chat_format: str, tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """The function that puts a prompt into the chat format.

    A tokenizer without a template of its own leaves the prompt as it is.
    """
    if chat_format == "llama2":
        return lambda prompt: f"[INST]{prompt}[/INST]"
    if chat_format == "xgen":
        return lambda prompt: f"{XGEN_HEADER} ### Human: {prompt}\n###"
    if chat_format == "tokenizer" and tokenizer.chat_template:
        template = tokenizer.get_chat_template()
        if pinned_date(chat_format, tokenizer):
            template = f"{_PINNED_CLOCK}{template}"

        def wrapped(prompt: str) -> str:
            chat = [{"role": "user", "content": prompt}]
            return str(
                tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
            )

        return wrapped
    return _unchanged


def check_wrapper(chat_format: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a template that no prompt can be put into.

    Raises:
        UserError: it is broken, one of several without a default, draws at random, or refuses or drops a plain prompt.
    """
    with library_errors("the chat template can't be used", f"; {WITHOUT}"):
        wrapped = chat_wrapper(chat_format, tokenizer)
        text, again = wrapped(NO_USER_TEXT), wrapped(NO_USER_TEXT)
    if NO_USER_TEXT not in text or text != again:
        what = "leaves the user's text out" if text == again else "writes another text each time"
        raise UserError(f"the chat template {what}; {WITHOUT}")


def pinned_date(chat_format: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that stands in prompts whose template asks for today's; None: it does not ask."""
    template = tokenizer.get_chat_template() if chat_format == "tokenizer" and tokenizer.chat_template else ""
    return CHAT_DATE.date().isoformat() if "strftime_now" in template else None


def wrap(wrap_chat: Callable[[str], str], prompt: str) -> tuple[str, range]:
    """The prompt in its chat format, and which of the characters are the user's.

    All that a chat writes around another text, too, is the format's: whatever a template adds or strips is found so.
    """
    wrapped, other = wrap_chat(prompt), wrap_chat(NO_USER_TEXT)
    before = _common(wrapped, other)
    after = _common(wrapped[before:][::-1], other[before:][::-1])
    return wrapped, range(before, len(wrapped) - after)


def postprocessor(chat_format: str) -> Callable[[str], str]:
    """What LongBench does to a model's output before scoring: XGen's loses "Assistant:"."""
    if chat_format == "xgen":
        return lambda text: text.strip().replace("Assistant:", "")
    return _unchanged


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return len(os.path.commonprefix([one, other]))  # noqa: RUF071 - no paths: characters are meant


def _unchanged(text: str) -> str:
    return text
