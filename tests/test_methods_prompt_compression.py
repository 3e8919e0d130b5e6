"""Selective Context: self-information, units, what stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import RunPy
from longbench_rows import row, write
from tiny_requests import byte_tokenizer, tiny_request

from lazybench.errors import UserError
from lazybench.measure.work import shares_of
from lazybench.methods import selective_context
from lazybench.methods.prompt_compression import PromptCompression
from lazybench.methods.running import generate
from lazybench.methods.selective_context import keep_informative, lexical_units, self_information, token_texts


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_self_information_in_chunks_is_that_of_one_pass(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selective_context, "CHUNK_TOKENS", 7)
    request = tiny_request(family)
    found = self_information(request.model, request.prompt_ids)[0]
    with torch.no_grad():
        rows = request.model(request.prompt_ids).logits[0].log_softmax(-1)
    expected = -rows[range(59), request.prompt_ids[0, 1:]]
    torch.testing.assert_close(found[1:], expected, atol=1e-4, rtol=1e-4)
    assert found[0] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_a_text_beyond_the_readers_window_is_read_in_windows() -> None:
    request = tiny_request("gpt2", max_position_embeddings=32)  # 60 tokens: two windows of 30
    found = self_information(request.model, request.prompt_ids)
    parts = [self_information(request.model, part) for part in request.prompt_ids.split(30, dim=1)]
    torch.testing.assert_close(found, torch.cat(parts, dim=1))
    assert found.isfinite().all()


def test_the_most_informative_units_stay_by_their_means() -> None:
    information = torch.tensor([9.0, 1.0, 1.0, 5.0, 5.0, 2.0, 2.0, 2.0, 0.0])
    units = torch.tensor([-1, 0, 0, 1, 1, 2, 2, 2, 3])
    assert keep_informative(information, units, 0.9).tolist() == list(range(9))
    assert keep_informative(information, units, 0.8).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert keep_informative(information, units, 0.6).tolist() == [0, 3, 4, 5, 6, 7]
    assert keep_informative(information, units, 0.3).tolist() == [0, 3, 4]
    assert keep_informative(information, units, 0.1).tolist() == [0]
    information = torch.tensor([3.0, 1.0, 1.0, 1.0, 1.0])
    assert keep_informative(information, torch.tensor([0, 1, 1, 1, 1]), 0.2).tolist() == [0]


def test_token_texts_join_to_the_prompt() -> None:
    tokenizer = byte_tokenizer()
    text = "A tree.  Another one!\n\tx = 1\n"
    ids = torch.tensor([1, *tokenizer(text).input_ids])
    texts = token_texts(tokenizer, ids)
    assert texts[0] == ""
    assert "".join(texts) == text


def test_sentences_and_lines_are_units() -> None:
    texts = ["", "A", " tree", ".", " Another", " one", "!", "\n", "x", " =", " 1", "\n"]
    assert lexical_units(texts, "sentence").tolist() == [-1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert lexical_units(texts, "token").tolist() == [-1, *range(1, 12)]


def test_tokens_are_dropped_to_an_exact_ratio_and_the_special_one_stays() -> None:
    request = tiny_request()
    response = PromptCompression(0.4, "token").run(request)
    information = self_information(request.model, request.prompt_ids)[0]
    best = information[1:].topk(23).indices + 1
    kept = torch.cat([torch.tensor([0]), best.sort().values])
    assert torch.equal(response.new_tokens, generate(request, request.prompt_ids[:, kept])[0])
    assert shares_of(response.work, request).prompt_tokens_computed == pytest.approx(1 + 24 / 60)
    assert (
        shares_of(response.work, request).flops_ratio < 1
    )  # reading the prompt costs as much as the prefill it shortens


def test_a_separate_reader_with_another_tokenizer(tmp_path) -> None:
    """The same weights under another tokenizer of the same bytes must drop the same tokens."""
    request = tiny_request()
    request.model.save_pretrained(tmp_path)
    request.tokenizer.save_pretrained(tmp_path)
    ids, context = request.prompt_ids[:, 1:], request.context[1:]  # no special token: both read the same ids
    text = replace(request, prompt_ids=ids, context=context)
    reader = PromptCompression(0.5, "token", language_model=str(tmp_path))
    reader.prepare(text.model)
    own = PromptCompression(0.5, "token").run(text)
    other = reader.run(text)
    assert torch.equal(own.new_tokens, other.new_tokens)
    assert shares_of(other.work, text).prompt_tokens_computed == pytest.approx(
        shares_of(own.work, text).prompt_tokens_computed - 1
    )  # the reader is another model
    assert shares_of(other.work, text).flops_ratio == pytest.approx(shares_of(own.work, text).flops_ratio)


def test_a_missing_reader_and_an_unknown_unit_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="unit 'word'; Known: sentence, token"):
        PromptCompression(0.5, "word")
    with pytest.raises(UserError, match=r"language_model=.*can't be loaded"):
        PromptCompression(0.5, "token", language_model=str(tmp_path / "none")).prepare(tiny_request().model)


def test_an_empty_context_fails_alone_and_says_so(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    """A bad row stands first, another in the middle: the others are measured, by every method."""
    rows = [row(number, context="" if number in (0, 2) else "A line. " * 20) for number in range(4)]
    done = run_py(
        *(f"model.path={tiny_checkpoint}", "task=qasper", f"data.root={write(tmp_path, 'qasper', rows)}"),
        *("methods=[baseline,{method: prompt_compression, unit: token}]", f"out={tmp_path / 'run'}"),
        *("max_new_tokens=2", "model.dtype=float32", "fidelity=false"),
    )
    assert done.returncode == 1, done.stderr
    named = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    for line, place in zip(named, (0, 2), strict=True):
        assert f"prompt_compression sample id{place}" in line
        assert "this sample's context is empty" in line
    records = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    failed = {(record["method"], record["sample_id"]) for record in records if record["error"]}
    assert (len(records), failed) == (8, {("prompt_compression", "id0"), ("prompt_compression", "id2")})
