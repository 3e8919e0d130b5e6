"""A prompt's tokens as lexical units: sentences, phrases, or the tokens themselves (Selective Context, section 3.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError

Unit = Literal["phrase", "sentence", "token"]

SPACY_MODEL = "en_core_web_sm"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")  # a line of code or of a list is a sentence too


def check_unit(unit: str) -> None:
    """Refuse an unknown unit, and phrases where spaCy is missing.

    Raises:
        UserError: with the commands that install what is missing.
    """
    if unit not in ("phrase", "sentence", "token"):
        raise UserError(f"prompt_compression.unit={unit!r} is not one of phrase, sentence, token")
    if unit == "phrase" and (find_spec("spacy") is None or find_spec(SPACY_MODEL) is None):
        raise UserError(
            f"prompt_compression.unit=phrase needs spaCy: pip install spacy && python -m spacy download {SPACY_MODEL}; "
            "or choose unit=sentence or unit=token"
        )


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
        edges = _sentence_starts(whole) if unit == "sentence" else _phrase_starts(whole)
        numbers = (torch.searchsorted(torch.tensor(edges), torch.tensor(starts), right=True) - 1).tolist()
    return torch.tensor([number if text else -1 for number, text in zip(numbers, texts, strict=True)])


def _sentence_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in SENTENCE_END.finditer(text))]


def _phrase_starts(text: str) -> list[int]:
    """Noun phrases as one unit each, every other word as its own, as the authors' code does."""
    document = _spacy()(text)
    return [0, *(word.idx for word in document if word.idx > 0)]


@lru_cache(maxsize=1)
def _spacy() -> Any:
    import spacy

    pipeline = spacy.load(SPACY_MODEL, disable=["ner"])
    pipeline.add_pipe("merge_noun_chunks")
    return pipeline
