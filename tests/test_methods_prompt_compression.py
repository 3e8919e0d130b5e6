"""Selective Context: self-information, sentences, what stays."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
import torch
from conftest import RunPy
from longbench_rows import row, write
from tiny_requests import byte_tokenizer, tiny_request

from lazybench.measure.work import shares_of
from lazybench.methods import selective_context
from lazybench.methods.prompt_compression import PromptCompression
from lazybench.methods.running import generate
from lazybench.methods.selective_context import keep_informative, self_information, sentence_of, token_texts


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


def test_the_most_informative_sentences_stay_by_their_means() -> None:
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


def test_lines_are_sentences_too() -> None:
    texts = ["", "A", " tree", ".", " Another", " one", "!", "\n", "x", " =", " 1", "\n"]
    assert sentence_of(texts).tolist() == [-1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_the_least_informative_sentences_go_and_the_special_token_stays() -> None:
    request = tiny_request(prompt_tokens=400)  # a token a byte
    information = self_information(request.model, request.prompt_ids)[0].tolist()
    text = request.tokenizer.decode(request.prompt_ids[0, 1:])
    begins = [0]
    for place in range(1, len(text)):
        before = text[:place]
        after_a_stop = before != before.rstrip() and before.rstrip().endswith((".", "!", "?"))
        on_a_line = before.endswith("\n") and text[place] != "\n"
        if on_a_line if not after_a_stop else not text[place].isspace():
            begins.append(place)
    groups = [range(first + 1, end + 1) for first, end in pairwise([*begins, len(text)])]  # behind the special token
    assert len(groups) > 3
    kept = set(range(400))
    for group in sorted(groups, key=lambda group: fmean(information[token] for token in group)):
        if len(kept) - len(group) < 0.4 * 400:
            break
        kept -= set(group)
    response = PromptCompression(0.4).run(request)
    assert torch.equal(response.new_tokens, generate(request, request.prompt_ids[:, sorted(kept)])[0])
    assert response.work.tokens_of_layer_runs == (400,) * 8 + (len(kept),) * 8
    assert len(kept) < 400
    # reading the prompt costs as much as the prefill it shortens
    assert shares_of(response.work, request).flops_ratio < 1


def test_an_empty_context_fails_alone_and_says_so(tiny_checkpoint: Path, run_py: RunPy, tmp_path: Path) -> None:
    """A bad row stands first, another in the middle: the others are measured, by every method."""
    rows = [row(number, context="" if number in (0, 2) else "A line. " * 20) for number in range(4)]
    done = run_py(
        *(f"model.path={tiny_checkpoint}", "task=qasper", f"data.root={write(tmp_path, 'qasper', rows)}"),
        *("methods=[baseline,prompt_compression]", f"out={tmp_path / 'run'}"),
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
