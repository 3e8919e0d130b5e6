"""GGUF files of all kinds: what they say arrives in the model, or they are refused in one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_files import Writing, write_gguf
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny_models import tiny_model
from transformers import PreTrainedModel

from lazybench.errors import UserError
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.gguf import quantization_of
from lazybench.models.gguf_file import GGUFFile
from lazybench.models.gguf_tokenizer import gguf_tokenizer

TEXT = Path(gguf.__file__).with_name("gguf_reader.py").read_text(encoding="utf-8")  # long enough to train on
PROMPT = torch.randint(3, 250, (1, 60), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYBENCH_CACHE", str(tmp_path / "cache"))


def llama(**rope: Any) -> PreTrainedModel:
    scaling = {"rope_theta": 10000.0, "rope_type": "default", **rope}
    return tiny_model("llama", vocab_size=320, max_position_embeddings=256, rope_parameters=scaling)


def load(path: Path) -> LoadedModel:
    return load_model(ModelSpec(name="custom", path=path, device="cpu"))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as told:
        load(path)
    return str(told.value)


def scaled(kind: gguf.RopeScalingType) -> Writing:
    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)

    return write


def rope_factors(model: PreTrainedModel) -> Writing:
    """What llama.cpp's converter makes of Llama 3's scaling: a tensor, no metadata."""
    frequencies = model.model.rotary_emb.inv_freq
    width = 2 * len(frequencies)
    plain = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
    return lambda writer: writer.add_tensor("rope_freqs.weight", (plain / frequencies).numpy().astype(np.float32))


LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("rope", "write"),
    [
        ({}, lambda writer: None),
        ({}, scaled(gguf.RopeScalingType.NONE)),
        ({"rope_type": "linear", "factor": 4.0}, scaled(gguf.RopeScalingType.LINEAR)),
        ({"rope_type": "linear", "factor": 4.0}, lambda writer: writer.add_rope_scaling_factor(4.0)),
        ({"rope_type": "llama3", "factor": 8.0, **LLAMA3}, None),
    ],
)
def test_rope_scaling_is_carried_over(rope: dict[str, Any], write: Writing | None, tmp_path: Path) -> None:
    """The logits are those of the model that the file was written from, in a prompt and in the steps after."""
    model = llama(**rope)
    loaded = load(write_gguf(tmp_path / "model.gguf", model, metadata=write or rope_factors(model))).model
    with torch.no_grad():
        torch.testing.assert_close(loaded(PROMPT).logits, model(PROMPT).logits, atol=1e-4, rtol=1e-4)
        generated = [one.generate(PROMPT, max_new_tokens=8, min_new_tokens=8) for one in (loaded, model)]
    assert torch.equal(*generated)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (scaled(gguf.RopeScalingType.LONGROPE), "longrope"),
        (scaled(gguf.RopeScalingType.YARN), "by yarn; carried over are linear and llama3's. Give model.path"),
        (lambda writer: writer.add_float32("llama.rope.scaling.attn_factor", 2.0), "rope.scaling.attn_factor=2.0"),
        (lambda writer: writer.add_uint32("llama.attention.sliding_window", 8), "llama.attention.sliding_window=8"),
        (lambda writer: writer.add_float32("llama.attention.scale", 0.5), "llama.attention.scale=0.5"),
        (lambda writer: writer.add_uint32("llama.attention.key_length", 64), "attention.key_length=64"),
        (lambda writer: writer.add_uint16("split.count", 2), "one of 2 parts; merge them"),
        (lambda writer: writer.add_bool("tokenizer.ggml.add_eos_token", True), "add_eos_token"),
        (lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32)), "another model"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_refused_by_name(write: Writing, words: str, tmp_path: Path) -> None:
    assert words in refused(write_gguf(tmp_path / "model.gguf", llama(), metadata=write))


@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        *((f"tokenizer.ggml.{key}",) * 2 for key in ("eos_token_id", "tokens", "token_type", "merges")),
        *((f"llama.{key}",) * 2 for key in ("context_length", "block_count", "attention.head_count")),
        ("llama.attention.layer_norm_rms_epsilon",) * 2,
        ("tokenizer.ggml.pre", "gpt2/None"),
        ("blk.2.", "model.layers.2."),
        ("output_norm", "model.norm.weight"),
    ],
)
def test_what_is_missing_is_named(lacks: str, named: str, tmp_path: Path) -> None:
    told = refused(write_gguf(tmp_path / "model.gguf", llama(), lacks=[lacks]))
    assert named in told or lacks in told


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.1, 0.5, 0.999])
def test_a_file_that_was_cut_off_ends_in_one_line(share: float, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", llama()).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    assert "cut.gguf is not a readable GGUF file" in refused(tmp_path / "cut.gguf")
    assert "no file" in refused(tmp_path / "absent.gguf")


def test_an_unknown_splitting_is_refused(tmp_path: Path) -> None:
    assert "gpt2/zmollm" in refused(write_gguf(tmp_path / "model.gguf", llama(), pre="zmollm"))


def test_llama3s_splitting_keeps_known_words_whole_and_begins_with_bos(tmp_path: Path) -> None:
    """As llama.cpp takes ``pre=llama-bpe``; the file's own word on BOS goes before."""
    tokenizer = load(write_gguf(tmp_path / "a.gguf", llama(), pre="llama-bpe")).tokenizer
    assert tokenizer(" qz the").tokens() == ["<|begin|>", "Ġqz", "Ġthe"]
    without = write_gguf(tmp_path / "b.gguf", llama(), "llama-bpe", lambda writer: writer.add_add_bos_token(False))
    assert load(without).tokenizer(" qz").tokens() == ["Ġqz"]
    other = load(write_gguf(tmp_path / "c.gguf", llama(), pre="gpt-2")).tokenizer
    assert other(" qz the").tokens() == ["Ġ", "q", "z", "Ġthe"]
    no_bos = write_gguf(tmp_path / "d.gguf", llama(), pre="llama-bpe", lacks=["tokenizer.ggml.bos_token_id"])
    assert "tokenizer.ggml.bos_token_id" in refused(no_bos)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_is_read_as_its_own_library_reads_it(prefix: bool, tmp_path: Path) -> None:
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")), model_writer=trained, model_type="bpe", vocab_size=420,
        byte_fallback=True, add_dummy_prefix=prefix, remove_extra_whitespaces=False, normalization_rule_name="identity",
        user_defined_symbols=[] if prefix else ["\u2581\u2581", "<b>"], minloglevel=2,
    )  # fmt: skip
    theirs = SentencePieceProcessor(model_proto=trained.getvalue())
    ids = range(theirs.get_piece_size())
    texts = [theirs.id_to_piece(index).replace("\u2581\u2581", "  ") for index in ids]  # as converters write these
    types = [
        2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i)
        else 4 if texts[i] in ("  ", "<b>") else 1 for i in ids
    ]  # fmt: skip

    def written(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(texts)
        writer.add_token_scores([theirs.get_score(index) for index in ids])
        writer.add_token_types(types)
        writer.add_unk_token_id(theirs.unk_id())
        writer.add_bos_token_id(theirs.bos_id())
        writer.add_eos_token_id(theirs.eos_id())
        writer.add_add_space_prefix(prefix)

    ours = gguf_tokenizer(GGUFFile(write_gguf(tmp_path / "a.gguf", llama(), metadata=written)))
    for text in (*TEXT.split("\n"), "a    b  ", " x", "  x", "<b>bold</b>", "two\nlines", "日本 🙂", "\x01\t."):
        assert ours(text).input_ids == [theirs.bos_id(), *theirs.encode(text)], text
        assert ours.decode(ours(text).input_ids, skip_special_tokens=True) == text


def test_the_end_of_a_turn_ends_a_generation(tmp_path: Path) -> None:
    loaded = load(write_gguf(tmp_path / "a.gguf", llama(), metadata=lambda writer: writer.add_eot_token_id(262)))
    assert loaded.model.generation_config.eos_token_id == [loaded.tokenizer.eos_token_id, 262]


def test_a_conversion_is_one_line_and_a_later_start_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_gguf(tmp_path / "a.gguf", llama())
    capfd.readouterr()
    load(path)
    assert capfd.readouterr().err == "a.gguf: converted once, for this start and all later ones\n"
    load(path)
    assert not capfd.readouterr().err


def test_the_quantisation_is_in_the_name(tmp_path: Path) -> None:
    """By the file's own word, else by most of its weights; plain floats have none."""
    q8 = write_gguf(tmp_path / "tiny-Q8_0.gguf", llama(), metadata=lambda writer: writer.add_file_type(7))
    assert quantization_of(q8) == "Q8_0"
    loaded = load(q8)
    assert (loaded.label, loaded.provenance["quantization"]) == ("tiny (Q8_0)", "Q8_0")
    assert quantization_of(q8) == "Q8_0"  # from the conversion now
    plain = load(write_gguf(tmp_path / "tiny.f32.gguf", llama()))
    assert (plain.label, plain.provenance["quantization"]) == ("tiny.f32", None)
