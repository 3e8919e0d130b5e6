"""What a checkpoint's files hold: all of it hashed, whole, and nothing in it that changes what is measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, shared_model
from transformers import LlamaConfig

from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
from lazybench.models.fingerprint import fingerprint
from lazybench.models.loading import quantized_as
from lazybench.models.weights import load_whole


def test_every_byte_of_every_file_is_in_the_fingerprint(llama2: Path, tmp_path: Path) -> None:
    """Changed in place, in the middle of a shard, of the same size: still another checkpoint."""
    folder = tmp_path / "sharded"
    model = load_model(ModelSpec(name="x", path=llama2)).model
    model.save_pretrained(folder, max_shard_size="50KB")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(llama2 / name, folder)
    (folder / "chat_template.jinja").write_text("a template that no model reads" * 3)
    first = fingerprint(folder)
    files = sorted(folder.iterdir())
    assert sum(file.suffix == ".safetensors" for file in files) > 2
    seen = {first}
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        seen.add(fingerprint(folder))
    assert len(seen) == len(files) + 1


def test_shards_that_lie_elsewhere_are_in_the_fingerprint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "indexed"
    shutil.copytree(tiny_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    seen = set()
    for shift in (0.0, 1.0):
        moved = {name: weight + shift for name, weight in weights.items()}
        save_file(moved, tmp_path / "elsewhere.safetensors", metadata={"format": "pt"})
        seen.add(load_model(ModelSpec(name="x", path=folder)).provenance["fingerprint"])
    assert len(seen) == 2


@pytest.mark.parametrize(("kept", "lacks"), [("nothing", "weights .* and no tokenizer"), ("tokenizer", "weights")])
def test_a_folder_that_is_not_whole_says_what_it_lacks(
    kept: str, lacks: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for file in tiny_checkpoint.glob("*"):
        if file.name == "config.json" or kept in file.name:
            shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path} has no {lacks} \([^)]+\): complete the checkpoint"):
        load_model(ModelSpec(name="x", path=tmp_path))


def test_a_checkpoint_brings_no_clock_no_cache_and_no_beams(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {"max_time": 0.001, "cache_implementation": "static", "num_beams": 3}
    folder = changed(tiny_checkpoint, tmp_path / "x", GENERATION, settings)
    generation = load_model(ModelSpec(name="x", path=folder)).model.generation_config
    assert not {generation.max_time, generation.cache_implementation, generation.num_beams} - {None}


def changed(checkpoint: Path, folder: Path, file: str, parts: dict[str, Any]) -> Path:
    """A copy of a checkpoint. Its file holds these parts too; a weight of None is left out; without parts it is cut."""
    shutil.copytree(checkpoint, folder)
    path = folder / file
    if not parts:
        path.write_bytes(path.read_bytes()[:1000])
    elif path.suffix == ".json":
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | parts))
    else:
        weights = {name: weight for name, weight in (load_file(path) | parts).items() if weight is not None}
        save_file(weights, path, metadata={"format": "pt"})
    return folder


CONFIG, GENERATION, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"


@pytest.mark.parametrize(
    ("file", "parts", "words"),
    [
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}, ["holds an adapter"]),
        (CONFIG, {"_attn_implementation": "stranger/kernel"}, ["a kernel of the hub"]),
        (WEIGHTS, {}, ["can't load x"]),
        (WEIGHTS, {"model.layers.2.mlp.up_proj.weight": None}, ["lacks 1 weight", "layers.2.mlp.up"]),
        (WEIGHTS, {"lm_head.weight": None}, ["lacks 1 weight", "lm_head.weight"]),
        (WEIGHTS, {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}, ["q_proj.bias"]),
        (CONFIG, {"num_hidden_layers": 3}, ["layers.3.", "config.json"]),
        (CONFIG, {"num_hidden_layers": 5}, ["lacks 9 weights", "layers.4."]),
        (CONFIG, {"intermediate_size": 32}, ["[32, 64] in the file and [32, 32] in config.json"]),
        # weights of an unknown kind are never loaded as plain floats
        (CONFIG, {"quantization_config": {"quant_method": "novel"}}, ["quant_method=novel, which transformers"]),
        (CONFIG, {"quantization_config": {"quant_method": "GPTQ", "bits": 4}}, ["quant_method=GPTQ, which"]),
        (CONFIG, {"quantization_config": {"bits": 4}}, ["quant_method=None, which transformers"]),
        (GENERATION, {"stop_strings": ["\n\n"]}, ["generation_config.json of x can't be used: ", "stop strings"]),
        (GENERATION, {"dola_layers": "high"}, ["asks for dola generation"]),
        (GENERATION, {"prompt_lookup_num_tokens": 3}, ["asks for assisted generation"]),
        (GENERATION, {"eos_token_id": "</s>"}, ["generation_config.json of x can't be used: ", "str"]),
    ],
)
def test_a_checkpoint_that_is_not_whole_or_not_plain_is_refused_by_name(
    file: str, parts: dict[str, Any], words: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as told:
        load_model(ModelSpec(name="x", path=changed(tiny_checkpoint, tmp_path / "broken", file, parts)))
    assert all(word in str(told.value) for word in words), told.value


def test_weights_of_no_use_are_said_and_recorded(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = changed(tiny_checkpoint, tmp_path / "more", WEIGHTS, {"vision_tower.weight": torch.ones(3)})
    loaded = load_model(ModelSpec(name="x", path=more))
    assert loaded.provenance["unused_weights"] == ["vision_tower.weight"]
    assert "LlamaForCausalLM has no use for 1 weight (vision_tower.weight)" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_saves_is_whole(family: str, tmp_path: Path) -> None:
    """Tied weights and buffers that a model makes itself are not missing."""
    shared_model(family).save_pretrained(tmp_path)
    _, unused = load_whole(tmp_path, family)
    assert not unused


@pytest.mark.parametrize(
    ("settings", "stated", "name"),
    [
        ({}, None, None),
        ({"quantization": "8bit"}, None, "8bit"),
        ({}, {"quant_method": "gptq", "bits": 4}, "gptq 4 bits"),
        ({}, {"quant_method": "fp8"}, "fp8"),
        ({}, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4 bits"),
        ({"weights": "random"}, {"quant_method": "fp8"}, None),
    ],
)
def test_quantised_weights_say_so(settings: dict[str, Any], stated: dict[str, Any] | None, name: str | None) -> None:
    config = LlamaConfig(**({} if stated is None else {"quantization_config": stated}))
    assert quantized_as(ModelSpec("x", hub_id="owner/x", **settings), config) == name
