"""Selective Context (arXiv 2310.06201): how much information each token carries, and which sentences stay."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lazybench.errors import SampleError, UserError
from lazybench.methods.request import Before, Request
from lazybench.pruning.budgets import share_of
from lazybench.pruning.layers import cache_argument, cache_of

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")  # a line of code or of a list is a sentence too
CHUNK_TOKENS = 512  # logits held at a time: (chunk, vocabulary)


def most_informative(request: Request, keep: float) -> tuple[Tensor, Before]:
    """(kept,) positions without the context's least informative sentences, and what reading the prompt ran.

    Raises:
        UserError: as ``droppable`` does.
    """
    ids, config = request.prompt_ids, request.model.config.get_text_config()
    sentences = sentence_of(token_texts(request.tokenizer, ids[0])).where(droppable(request), torch.tensor(-1))
    positions = keep_informative(self_information(request.model, ids)[0], sentences, keep)
    tokens = ids.shape[1]
    # unlike in a prefill, the output embedding runs for every token
    flops = 2.0 * config.hidden_size * config.vocab_size * tokens
    return positions, Before((tokens,) * config.num_hidden_layers, flops)


def droppable(request: Request) -> Tensor:
    """Which of the prompt's tokens may go: the document's, but no special token and none of the chat format's.

    Returns:
        (prompt_tokens,) bool, on the CPU.

    Raises:
        UserError: the task does not tell its document from the rest, or this sample has none.
    """
    if request.context is None:
        raise UserError(
            "prompt_compression shortens the context alone, and this task does not say which part of its prompt is "
            "the context; choose another method or task"
        )
    if not request.context.any():
        raise SampleError("this sample's context is empty, there is nothing for prompt_compression to drop")
    special = torch.tensor(request.tokenizer.all_special_ids, dtype=torch.long)
    may_go = request.context & ~torch.isin(request.prompt_ids[0].cpu(), special)
    return may_go if request.template is None else may_go & ~request.template


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


def sentence_of(texts: list[str]) -> Tensor:
    """The number of each token's sentence: where the token's first character that is no white space lies.

    Args:
        texts: what each token adds to the text.

    Returns:
        (tokens,) long; -1 for tokens without text.
    """
    starts, position = [], 0
    for text in texts:
        starts.append(position + len(text) - len(text.lstrip()) if text.strip() else position)
        position += len(text)
    edges = [0, *(match.end() for match in SENTENCE_END.finditer("".join(texts)))]
    numbers = torch.searchsorted(torch.tensor(edges), torch.tensor(starts), right=True) - 1
    return numbers.where(torch.tensor([bool(text) for text in texts]), torch.tensor(-1))


@torch.no_grad()
def self_information(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """``-log p`` of each token given those before it, in nats; the first, which has none, gets the mean.

    Args:
        ids: (1, tokens).

    Returns:
        (1, tokens) float32.
    """
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


def keep_informative(information: Tensor, sentences: Tensor, keep: float) -> Tensor:
    """Positions that stay when the least informative sentences go, as long as ``keep`` of the tokens remain.

    Args:
        information: (tokens,) self-information.
        sentences: (tokens,) the number of each token's sentence; -1 for tokens that always stay.

    Returns:
        (kept,) positions in the text's order.
    """
    sentences = sentences.to(information.device)
    among = sentences >= 0
    count = int(sentences.max()) + 1 if bool(among.any()) else 0
    sizes = torch.bincount(sentences[among], minlength=count)  # (count,)
    sums = torch.zeros(count, dtype=torch.float64, device=information.device)
    sums.index_add_(0, sentences[among], information[among].double())
    ascending = (sums / sizes.clamp(min=1)).argsort(stable=True)
    spare = len(information) - share_of(keep, len(information))
    dropped = ascending[sizes[ascending].cumsum(0) <= spare]
    return (~torch.isin(sentences, dropped)).nonzero()[:, 0]
