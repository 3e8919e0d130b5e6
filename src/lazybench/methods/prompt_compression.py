"""Prompt compression: a language model reads the prompt first and drops what it could have guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.measure.flops import prefill_flops
from lazybench.methods.base import Request, Response
from lazybench.methods.lexical_units import Unit, check_unit, lexical_units, token_texts
from lazybench.methods.shortening import check_share, generate, kept_tokens

CHUNK_TOKENS = 1024  # logits held at a time: (chunk, vocabulary)


@dataclass(frozen=True)
class PromptCompression:
    """Selective Context: drop the units of text that carry the least self-information.

    Source: Li et al. 2023 (arXiv 2310.06201), compared in LazyLLM's table 1 (arXiv 2407.14057). A token's
    self-information is ``-log p(token | what stands before it)``; a unit's is the mean over its tokens, as
    in the authors' code (the paper's formula sums).

    Deviations, each in the competitor's favour or for an exact keep ratio:

    - the language model reads the whole prompt in one pass; the authors' code reads it sentence by sentence;
    - units are dropped from the least informative up as long as ``keep`` of the *tokens* remain; the authors'
      code takes a percentile of the units;
    - dropped tokens leave the prompt's ids: the rest is not joined to text and tokenised again, white space
      not normalised;
    - special tokens (begin of text, chat roles) are always kept.

    All of it runs inside the clock, on every prompt; its share is ``Response.overhead_s``.

    Args:
        keep: share of the prompt's tokens that stays at least, in (0, 1].
        unit: ``"phrase"`` (spaCy's noun phrases, other words alone), ``"sentence"`` or ``"token"``.
        language_model: hub id or folder of the model that reads; None: the model under test itself.
    """

    keep: float = 0.5
    unit: Unit = "phrase"
    language_model: str | None = None
    compressor: Literal["selective_context"] = "selective_context"

    name: ClassVar[str] = "prompt_compression"
    repeats: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_share("prompt_compression.keep", self.keep)
        if self.compressor != "selective_context":
            raise UserError(f"prompt_compression.compressor={self.compressor!r} is not one of selective_context")
        check_unit(self.unit)

    @property
    def variant(self) -> str:
        reader = "" if self.language_model is None else f" by={self.language_model}"
        return f"{self.unit} keep={self.keep:g}{reader}"

    def run(self, request: Request) -> Response:
        started = time.perf_counter()
        ids = request.prompt_ids[0]  # (prompt_tokens,)
        tokens = len(ids)
        if kept_tokens(self.keep, tokens) == tokens:  # nothing to drop: nothing to read
            return Response(generate(request, request.prompt_ids), 1.0, (1.0,), 1.0)
        reader = request.model if self.language_model is None else _load(self.language_model, ids.device)[0]
        texts = token_texts(request.tokenizer, ids)
        unit_of_token = lexical_units(texts, self.unit)
        if self.language_model is None:
            information, read_tokens = self_information(reader, request.prompt_ids)[0], tokens
        else:
            information, read_tokens = _by_characters(self.language_model, texts, ids.device)
        positions = keep_informative(information, unit_of_token, self.keep)
        request.synchronize()
        overhead_s = time.perf_counter() - started
        new_tokens = generate(request, request.prompt_ids[:, positions])
        share, own = len(positions) / tokens, 1.0 if self.language_model is None else 0.0
        return Response(
            new_tokens,
            own + share,
            (own + share,),
            _ideal_speedup(request.model, tokens, len(positions), reader, read_tokens),
            overhead_s,
        )


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
        output = model(ids[:, chunk], attention_mask=mask, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        log_probabilities = output.logits.float().log_softmax(-1)  # (1, chunk, vocabulary)
        parts.append(-log_probabilities.gather(-1, following[:, chunk, None].to(output.logits.device))[..., 0])
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
    spare = len(information) - kept_tokens(keep, len(information))
    dropped = ascending[sizes[ascending].cumsum(0) <= spare]
    gone = torch.isin(unit_of_token, dropped)
    return (~gone).nonzero()[:, 0]


def _ideal_speedup(model: PreTrainedModel, tokens: int, kept: int, reader: PreTrainedModel, read_tokens: int) -> float:
    """The reader's output embedding runs for every token, unlike in a prefill: it counts."""
    layers = model.config.get_text_config().num_hidden_layers
    read = reader.config.get_text_config()
    reading = prefill_flops(reader.config, [read_tokens] * read.num_hidden_layers)
    reading += 2.0 * read.hidden_size * read.vocab_size * read_tokens
    whole, rest = (prefill_flops(model.config, [count] * layers) for count in (tokens, kept))
    return whole / (reading + rest)


@lru_cache(maxsize=1)
def _load(name: str, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The separate reader, loaded once (in a warm-up run, not inside the clock)."""
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map=device).eval()
        return model, AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise UserError(
            f"prompt_compression.language_model={name!r} can't be loaded; name a folder or a hub id "
            f"({str(error).splitlines()[0]})"
        ) from None


def _by_characters(name: str, texts: list[str], device: torch.device) -> tuple[Tensor, int]:
    """Self-information of our tokens by a model with its own tokenizer: spread over characters, summed again.

    Returns:
        (tokens,) on the CPU, and how many tokens the other model read.
    """
    model, tokenizer = _load(name, device)
    encoded = tokenizer("".join(texts), return_tensors="pt", return_offsets_mapping=True, add_special_tokens=False)
    information = self_information(model, encoded.input_ids.to(device))[0].double().cpu()
    starts, ends = encoded.offset_mapping[0].unbind(-1)
    characters = torch.zeros(sum(map(len, texts)), dtype=torch.float64)
    for start, end, value in zip(starts.tolist(), ends.tolist(), information.tolist(), strict=True):
        characters[start:end] += value / max(1, end - start)
    running = torch.cat([characters.new_zeros(1), characters.cumsum(0)])
    edges = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0)
    return (running[edges[1:]] - running[edges[:-1]]).float(), encoded.input_ids.shape[1]
