"""The tokenizer that a GGUF file's metadata describe, for pre-tokenizers that are known exactly.

transformers reads the weights right, but not every tokenizer: it misses SmolLM2's digit splitting, and older
versions confuse its special tokens. So it is built here, with the flags that llama.cpp sets (src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from lazybench.errors import UserError
from lazybench.models.gguf_file import GGUFFile

CONTROL, USER_DEFINED = 3, 4  # token types of the GGUF format
SPACE = "\u2581"  # SentencePiece's
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_BPE = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def _bytes(use_regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), _bytes(use_regex=False)])


@dataclass(frozen=True)
class PreTokenizer:
    """What llama.cpp ties to a name in ``tokenizer.ggml.pre``."""

    make: Callable[[], Any]
    ignore_merges: bool = False  # a word that is a token stays whole, whether merges lead to it or not
    add_bos: bool = False  # where the file doesn't say


LLAMA3 = PreTokenizer(lambda: _split(LLAMA_BPE), ignore_merges=True, add_bos=True)
PRE_TOKENIZERS = {
    "smollm": PreTokenizer(lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes()])),
    "gpt-2": PreTokenizer(_bytes),
    "qwen2": PreTokenizer(lambda: _split(QWEN2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), LLAMA3),
}


def gguf_tokenizer(file: GGUFFile) -> PreTrainedTokenizerFast:
    """The tokenizer that the file's metadata describe.

    Raises:
        UserError: something is missing, or a kind of tokenizer whose splitting is not known exactly.
    """
    kind, splitting = file.get("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre")
    sentencepiece = (kind, splitting) == ("llama", "default")
    if not sentencepiece and (kind != "gpt2" or splitting not in PRE_TOKENIZERS):
        raise UserError(
            f"{file.path.name} has a tokenizer of kind {kind}/{splitting}; known exactly are llama/default, and gpt2 "
            f"with {', '.join(PRE_TOKENIZERS)}. Give model.path a checkpoint folder with its own tokenizer instead"
        )
    for flag in ("add_eos_token", "add_sep_token"):
        if file.get(f"tokenizer.ggml.{flag}"):
            raise UserError(f"{file.path.name} ends every prompt ({flag}=true), so no answer can follow it")
    texts, types = file.need("tokenizer.ggml.tokens"), file.need("tokenizer.ggml.token_type")
    vocabulary = {text: index for index, text in enumerate(texts)}
    if len(vocabulary) != len(texts) or len(types) != len(texts):
        raise UserError(f"{file.path.name} is a broken GGUF file: it has tokens twice, or not a type for each")
    if sentencepiece:
        tokenizer, add_bos = _sentencepiece(file, vocabulary), True
    else:
        known = PRE_TOKENIZERS[splitting]
        tokenizer, add_bos = _byte_level(file, vocabulary, known), known.add_bos
    spaced = isinstance(tokenizer.normalizer, normalizers.Replace)  # a run of spaces can be one of Gemma's own tokens
    for wanted, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [text for text, type_ in zip(texts, types, strict=True) if type_ == wanted]
        tokens = [AddedToken(text, normalized=spaced and not special, special=special) for text in added]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    add_bos = bool(file.get("tokenizer.ggml.add_bos_token", add_bos))
    needed = {"eos", "bos"} if add_bos else {"eos"}
    special_tokens = {}
    for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        key = f"tokenizer.ggml.{key}_token_id"
        index = file.need(key) if name in needed else file.get(key)
        if index is not None:
            special_tokens[f"{name}_token"] = texts[index]
    special_tokens.setdefault("pad_token", special_tokens["eos_token"])
    if add_bos:
        bos = special_tokens["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=file.get("tokenizer.chat_template"),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=file.need(f"{file.architecture}.context_length"),
        **special_tokens,
    )


def _byte_level(file: GGUFFile, vocabulary: dict[str, int], known: PreTokenizer) -> Tokenizer:
    merges = [tuple(merge.split(" ")) for merge in file.need("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=known.ignore_merges))
    tokenizer.pre_tokenizer = known.make()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _sentencepiece(file: GGUFFile, vocabulary: dict[str, int]) -> Tokenizer:
    """Byte pairs of SentencePiece: the pair whose joint token has the highest score is merged first."""
    scores = dict(zip(vocabulary, file.need("tokenizer.ggml.scores"), strict=True))
    unknown = list(vocabulary)[file.need("tokenizer.ggml.unknown_token_id")]
    merges = generate_merges(vocabulary, scores)
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.get("tokenizer.ggml.add_space_prefix", True):  # as llama.cpp: at the start, and behind added tokens
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        tokenizer.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", left=1)])
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.decoder = decoders.Sequence(spaces)
    return tokenizer
