"""Checkpoints, here or on the hub: all of it hashed, whole, and nothing in it that changes what is measured."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import python
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


# ---- the hub: a real server on this machine that speaks its protocol, and what is said where it refuses


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(llama2: Path) -> Iterator[str]:
    """A server that speaks the hub's protocol: one open model, one gated, nothing else."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if "some/gated" in path and "/resolve/" in path:
                return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            if "revision/absent" in path:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if "some/open" not in path and "some/gated" not in path:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            names = sorted(file.name for file in llama2.iterdir())
            if "/tree/" in path:
                sizes = {name: (llama2 / name).stat().st_size for name in names}
                tree = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
                return self.answer(200, json.dumps(tree).encode(), {})
            if path.startswith("/api/models/"):
                facts = {"id": "some/open", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                return self.answer(200, json.dumps(facts).encode(), {})
            body = (llama2 / path.rsplit("/", 1)[1]).read_bytes()
            return self.answer(200, body, {"ETag": f'"{path[-9:]}{len(body)}"', "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LOAD = """
import json, sys, time
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
for hub_id, revision in json.loads(sys.argv[1]):
    start = time.perf_counter()
    try:
        said = load_model(ModelSpec(name="x", hub_id=hub_id, revision=revision, device="cpu")).provenance
    except UserError as error:
        said = str(error)
    print(json.dumps([said, time.perf_counter() - start]))
"""


def load_from(endpoint: str, home: Path, *asked: tuple[str, str | None]) -> list[tuple[object, float]]:
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "", "NO_PROXY": "*"}
    done = python("-c", LOAD, json.dumps(asked), **hub)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_hub(hub: str, tmp_path: Path) -> None:
    named = ("some/gated", "some/nothing", "a/b/c")
    asked = [("some/open", None), ("some/open", "absent"), *((name, None) for name in named)]
    loaded, *refused = [said for said, _ in load_from(hub, tmp_path, *asked)]
    assert isinstance(loaded, dict), loaded
    assert loaded["revision"] == COMMIT
    words = (["absent", "model.revision"], ["licence", "HF_TOKEN", "some/gated"], ["some/nothing"], ["OWNER/NAME"])
    for said, wanted in zip(refused, words, strict=True):
        assert isinstance(said, str)
        assert "\n" not in said
        assert all(word in said for word in wanted), said

    # without the hub: what was downloaded still loads, the rest is one line, and neither takes long
    (cached, _), (unreachable, seconds) = load_from("http://127.0.0.1:1", tmp_path, asked[0], asked[3])
    assert cached == loaded
    assert "some/nothing: can't reach the hub" in str(unreachable)
    assert seconds < 20
