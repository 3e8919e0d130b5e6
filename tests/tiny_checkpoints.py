"""Tiny checkpoints in the forms of the paper's models: Llama 2 with sentencepiece, XGen with GPT-2's ranks."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import sentencepiece
import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM

from lazybench.models.xgen_tokenizer import END_OF_TEXT

TEXTS = [topics[name] for name in sorted(topics)[:20]]


def save_llama(folder: Path, vocab_size: int, window: int, **more: int) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=window,
        **more,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_llama2(folder: Path) -> Path:
    """Llama 2's files: tokenizer.model from sentencepiece (byte fallback), BOS in front, no pad token."""
    save_llama(folder, vocab_size=600, window=4096, bos_token_id=1, eos_token_id=2)
    lines = folder / "lines.txt"
    lines.write_text("\n".join(line.strip() for text in TEXTS for line in text.splitlines() if line.strip()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    lines.unlink()
    (folder / "tokenizer.vocab").unlink()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def byte_pair_vocabulary(size: int = 800) -> dict[str, int]:
    """A vocabulary in GPT-2's form and order (bytes first, then merges), trained on real text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    # GPT-2's vocabulary has no runs of spaces and tabs; XGen adds them
    tokenizer.train_from_iterator((" ".join(text.split()) for text in TEXTS), trainer)
    return tokenizer.get_vocab()


def save_xgen(folder: Path) -> Path:
    """XGen's files: a Llama whose embedding has more rows than the tokenizer tokens; its ranks beside it."""
    vocabulary = byte_pair_vocabulary()
    end = len(vocabulary)
    save_llama(folder, vocab_size=end + 64, window=8192, bos_token_id=end, eos_token_id=end)
    (folder / "encoder.json").write_text(json.dumps({**vocabulary, END_OF_TEXT: end}))
    return folder
