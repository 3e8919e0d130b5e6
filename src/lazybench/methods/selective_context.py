"""Selective Context (arXiv 2310.06201): how much information each token carries, and which units stay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.methods.request import Request
from lazybench.methods.running import Part, droppable
from lazybench.models.flops import full_prefill_flops
from lazybench.pruning.budgets import share_of
from lazybench.pruning.checks import window_of
from lazybench.pruning.layers import cache_argument, cache_of

Unit = Literal["sentence", "token"]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")  # a line of code or of a list is a sentence too
CHUNK_TOKENS = 512  # logits held at a time: (chunk, vocabulary)


@dataclass(frozen=True)
class Compressed:
    """A shorter prompt and what making it took, as ``Work`` counts it."""

    prompt_ids: Tensor  # (1, kept)
    layer_runs: tuple[int, ...] = ()  # of the model under test, when it is the reader
    other_flops: float = 0.0


def compress(request: Request, part: Part, keep: float, unit: Unit, language_model: str | None) -> Compressed:
    """The prompt without its least informative units. See ``PromptCompression``.

    Raises:
        UserError: as ``droppable`` does.
    """
    ids = request.prompt_ids
    texts = token_texts(request.tokenizer, ids[0])
    unit_of_token = lexical_units(texts, unit).where(droppable(request, part), torch.tensor(-1))
    if language_model is None:
        reader, read_tokens = request.model, ids.shape[1]
        information = self_information(reader, ids)[0]
    else:
        reader, tokenizer = load(language_model, ids.device)
        information, read_tokens = _by_characters(reader, tokenizer, texts)
    positions = keep_informative(information, unit_of_token, keep).to(ids.device)
    config = reader.config.get_text_config()
    # unlike in a prefill, the output embedding runs for every token
    flops = 2.0 * config.hidden_size * config.vocab_size * read_tokens
    if language_model is None:
        return Compressed(ids[:, positions], (read_tokens,) * config.num_hidden_layers, flops)
    return Compressed(ids[:, positions], other_flops=flops + full_prefill_flops(reader.config, read_tokens))


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
        edges = [0, *(match.end() for match in SENTENCE_END.finditer(whole))]
        numbers = (torch.searchsorted(torch.tensor(edges), torch.tensor(starts), right=True) - 1).tolist()
    return torch.tensor([number if text else -1 for number, text in zip(numbers, texts, strict=True)])


@torch.no_grad()
def self_information(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """``-log p`` of each token given those before it, in nats; the first, which has none, gets the mean.

    A text longer than the model's window is read in windows, each by itself.

    Args:
        ids: (1, tokens).

    Returns:
        (1, tokens) float32.
    """
    window = window_of(model.config.get_text_config()) or ids.shape[1]
    parts = ids.tensor_split(-(-ids.shape[1] // window), dim=1)  # of equal length: none is a single token
    return torch.cat([_information_in_window(model, part) for part in parts], dim=1)


def _information_in_window(model: PreTrainedModel, ids: Tensor) -> Tensor:
    cache, parts = None, []
    following = torch.cat([ids[:, 1:], ids[:, :1]], dim=1)  # the token after each; the last one's is not used
    for start in range(0, ids.shape[1], CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        seen = min(chunk.stop, ids.shape[1])
        mask = torch.ones_like(ids[:, :seen])
        output = model(ids[:, chunk], attention_mask=mask, use_cache=True, **{cache_argument(model): cache})
        cache = cache_of(output)
        logits = output.logits.float()  # (1, chunk, vocabulary)
        chosen = logits.gather(-1, following[:, chunk, None].to(logits.device))[..., 0]  # (1, chunk)
        parts.append(logits.logsumexp(-1) - chosen)  # -log p, without a second tensor of the vocabulary's size
    information = torch.cat(parts, dim=1)[:, :-1]  # (1, tokens - 1), of the tokens from the second on
    return torch.cat([information.mean(1, keepdim=True), information], dim=1)


def keep_informative(information: Tensor, unit_of_token: Tensor, keep: float) -> Tensor:
    """Positions that stay when the least informative units go, as long as ``keep`` of the tokens remain.

    Args:
        information: (tokens,) self-information.
        unit_of_token: (tokens,) the number of each token's unit; -1 for tokens that always stay.

    Returns:
        (kept,) positions in the text's order.
    """
    unit_of_token = unit_of_token.to(information.device)
    lexical = unit_of_token >= 0
    units = int(unit_of_token.max()) + 1 if bool(lexical.any()) else 0
    sizes = torch.bincount(unit_of_token[lexical], minlength=units)  # (units,)
    sums = torch.zeros(units, dtype=torch.float64, device=information.device)
    sums.index_add_(0, unit_of_token[lexical], information[lexical].double())
    ascending = (sums / sizes.clamp(min=1)).argsort(stable=True)
    spare = len(information) - share_of(keep, len(information))
    dropped = ascending[sizes[ascending].cumsum(0) <= spare]
    gone = torch.isin(unit_of_token, dropped)
    return (~gone).nonzero()[:, 0]


@cache
def load(name: str, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The separate reader, loaded once, by ``prepare``, and kept: no later call may load inside the clock."""
    try:
        no_code = {"trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map=device, **no_code).eval()
        return model, AutoTokenizer.from_pretrained(name, **no_code)
    except (OSError, ValueError) as error:
        raise UserError(
            f"prompt_compression.language_model={name!r} can't be loaded; name a folder or a hub id "
            f"({str(error).splitlines()[0]})"
        ) from None


def _by_characters(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[Tensor, int]:
    """Self-information of our tokens by a model with its own tokenizer: spread over characters, summed again.

    Returns:
        (tokens,) on the CPU, and how many tokens the other model read.
    """
    encoded = tokenizer("".join(texts), return_tensors="pt", return_offsets_mapping=True, add_special_tokens=False)
    information = self_information(model, encoded.input_ids.to(model.device))[0].double().cpu()
    starts, ends = encoded.offset_mapping[0].unbind(-1)
    characters = torch.zeros(sum(map(len, texts)), dtype=torch.float64)
    for start, end, value in zip(starts.tolist(), ends.tolist(), information.tolist(), strict=True):
        characters[start:end] += value / max(1, end - start)
    running = torch.cat([characters.new_zeros(1), characters.cumsum(0)])
    edges = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0)
    return (running[edges[1:]] - running[edges[:-1]]).float(), encoded.input_ids.shape[1]
