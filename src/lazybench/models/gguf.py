"""GGUF files: converted once to a safetensors folder with a tokenizer built from the file's own metadata.

transformers reads the weights right, but not every tokenizer: it misses SmolLM2's digit splitting, and older
versions confuse its special tokens. So the tokenizer is built here, for pre-tokenizers that are known exactly.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lazybench.errors import UserError
from lazybench.typed import path_of

MANIFEST = "complete.json"  # of a converted folder: its files and their sizes
CONTROL, USER_DEFINED = 3, 4  # token types of the GGUF format
# split patterns by the file's tokenizer.ggml.pre, as llama.cpp defines them (src/llama-vocab.cpp)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_BPE = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def _bytes(use_regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _split(pattern: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), _bytes(use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes()]),
    "gpt-2": _bytes,
    "default": _bytes,
    "qwen2": lambda: _split(QWEN2),
    "llama-bpe": lambda: _split(LLAMA_BPE),
}


def cache_root() -> Path:
    """``LAZYBENCH_CACHE``, or lazybench's folder under the user's cache folder."""
    if explicit := os.environ.get("LAZYBENCH_CACHE"):
        return path_of(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazybench"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted(path: Path) -> tuple[Path, str]:
    """The folder that holds this GGUF file as safetensors and tokenizer.json, made on the first call.

    It is made beside its place and renamed into it; a list of its files and their sizes tells a torn one.

    Returns:
        the folder and the GGUF file's sha256, which names it.

    Raises:
        UserError: no such file, not a GGUF file, a tokenizer that is not known exactly, no space left.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; model.path must name a checkpoint folder or a .gguf file")
    digest = sha256_of(path)
    folder = cache_root() / f"gguf-{digest[:16]}"
    if _is_whole(folder):
        return folder, digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="converting-", dir=folder.parent) as scratch:
            making = Path(scratch) / folder.name
            making.mkdir()
            _convert(path, making)
            sizes = {file.name: file.stat().st_size for file in making.iterdir()}
            (making / MANIFEST).write_text(json.dumps(sizes))
            if not _is_whole(folder):  # unless another process was quicker
                shutil.rmtree(folder, ignore_errors=True)
                making.rename(folder)
    except (OSError, SafetensorError) as error:
        if _is_whole(folder):
            return folder, digest
        raise UserError(
            f"can't keep the converted model under {folder.parent}: {getattr(error, 'strerror', None) or error}; "
            "free space there or set LAZYBENCH_CACHE to another folder"
        ) from error
    return folder, digest


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / MANIFEST).read_text())
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _convert(path: Path, folder: Path) -> None:
    tokenizer = gguf_tokenizer(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path.name} can't be loaded: {' '.join(str(error).split())}") from error
    # a model that remembers its quantised origin can't be saved by newer transformers: hand its weights to a plain one
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    for settings in (plain.config, plain.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that the file's metadata describe.

    Raises:
        UserError: not a GGUF file, or a kind of tokenizer whose splitting is not known exactly.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except (ValueError, OSError) as error:
        raise UserError(f"{path.name} is not a readable GGUF file: {error}") from error

    def read(key: str) -> Any:
        return fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else None

    kind, splitting = read("model"), read("pre") or "default"
    if kind != "gpt2" or splitting not in PRE_TOKENIZERS:
        raise UserError(
            f"{path.name} has a tokenizer of kind {kind}/{splitting}; known exactly are gpt2 with "
            f"{', '.join(PRE_TOKENIZERS)}. Give model.path a checkpoint folder with its own tokenizer instead"
        )
    texts, types = read("tokens"), read("token_type")
    merges = [(left, right) for left, right in (merge.split(" ") for merge in read("merges"))]
    tokenizer = Tokenizer(BPE(vocab={text: index for index, text in enumerate(texts)}, merges=merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[splitting]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    for wanted, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [text for text, type_ in zip(texts, types, strict=True) if type_ == wanted]
        tokens = [AddedToken(text, normalized=False, special=special) for text in added]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {name: read(f"{key}_token_id") for name, key in names.items()}
    special_tokens = {f"{name}_token": texts[index] for name, index in ids.items() if index is not None}
    special_tokens.setdefault("pad_token", special_tokens["eos_token"])
    if read("add_bos_token"):
        bos = special_tokens["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, ids["bos"])])
    template = fields["tokenizer.chat_template"].contents() if "tokenizer.chat_template" in fields else None
    window = fields[f"{fields['general.architecture'].contents()}.context_length"].contents()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=template,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=window,
        **special_tokens,
    )
