"""A prompt's tokens as lexical units: sentences, or the tokens themselves (Selective Context, section 3.2)."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

Unit = Literal["sentence", "token"]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")  # a line of code or of a list is a sentence too


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Tensor) -> list[str]:
    """The text that each token adds to the one before it; special tokens add none.

    Decoded in pairs, because SentencePiece drops the space of a text's first token. Joined, they are the
    prompt's text, so that positions of tokens and of characters agree by construction.
    """
    numbers = ids.tolist()
    special = set(tokenizer.all_special_ids)
    pairs = [[before, after] for before, after in zip(numbers[:1] + numbers, numbers, strict=False)]
    decode = {"clean_up_tokenization_spaces": False}
    firsts = tokenizer.batch_decode([[before] for before, _ in pairs], **decode)
    both = tokenizer.batch_decode(pairs, **decode)
    return [
        "" if after in special else text[len(first) :]
        for (_, after), first, text in zip(pairs, firsts, both, strict=True)
    ]


def lexical_units(texts: list[str], unit: Unit) -> Tensor:
    """The number of each token's unit: where the token's first character that is no white space lies.

    Args:
        texts: what each token adds to the text.

    Returns:
        (tokens,) long; -1 for tokens without text.
    """
    starts, position = [], 0
    for text in texts:
        starts.append(position + len(text) - len(text.lstrip()) if text.strip() else position)
        position += len(text)
    if unit == "token":
        numbers = list(range(len(texts)))
    else:
        whole = "".join(texts)
        edges = _sentence_starts(whole)
        numbers = (torch.searchsorted(torch.tensor(edges), torch.tensor(starts), right=True) - 1).tolist()
    return torch.tensor([number if text else -1 for number, text in zip(numbers, texts, strict=True)])


def _sentence_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in SENTENCE_END.finditer(text))]
