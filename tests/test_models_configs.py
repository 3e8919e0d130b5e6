"""Every model of conf/model: it makes a ModelSpec, and the stated shapes are the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lazybench.cli.groups import model_file
from lazybench.models import ModelSpec
from lazybench.models.fit import weight_bytes
from lazybench.models.random_weights import true_shape

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


def spec_of(name: str, **changes: Any) -> ModelSpec:
    stated: Any = OmegaConf.to_container(model_file(name))
    return ModelSpec(**(stated | changes))


@pytest.mark.parametrize("name", NAMES)
def test_says_only_what_differs_from_the_defaults(name: str) -> None:
    stated = model_file(name)
    spec, plain = spec_of(name), ModelSpec("plain")
    assert spec.name == name
    assert (spec.hub_id is None) == (name in ("custom", "smollm2"))  # the embedded file has no other place
    assert all(getattr(spec, key) != getattr(plain, key) for key in stated if stated[key] is not None)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_stated_shape_is_the_models(name: str) -> None:
    import torch

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
