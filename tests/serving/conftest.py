"""Real vLLM engines in this process over tiny models of its four families, and the Hugging Face engine beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny_checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

from lazybench import methods
from lazybench.methods.request import Request
from lazybench.serving.plans import plan_for

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SHAPE = {
    "hidden_size": 128,  # Qwen 2 has no head_dim of its own
    "intermediate_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the least that vLLM's attention on a CPU takes
}
os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
    HF_HUB_OFFLINE="1",
)
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "0")
NEAR = 1e-4  # two logits so close may change places with the order of a sum


def sampling(new: int = 8, **options: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**{"temperature": 0, "max_tokens": new, "ignore_eos": True, "detokenize": False, **options})


@dataclass
class Served:
    """One vLLM engine whose policy can be changed, and the plain Hugging Face model with the same weights."""

    llm: Any
    model: PreTrainedModel

    @property
    def inside(self) -> Any:
        (found,) = self.llm.apply_model(lambda served: served)
        return found

    def use(self, name: str, params: dict[str, Any] | None = None) -> Any:
        """Prune by this method from now on; returns it."""
        method = methods.build(name, params or {})
        self.inside.prune_by(plan_for(method, self.model.config))
        return method

    def generate(self, prompts: Sequence[list[int]], new: int = 8, how: Any = None) -> list[list[int]]:
        """``how``: what ``sampling`` gives, for each prompt."""
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        answers = self.llm.generate(asked, how or sampling(new), use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    def expect(self, method: Any, prompt: list[int], new: int = 8) -> list[int]:
        """What the Hugging Face engine generates."""
        limits = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        request = Request(self.model, None, torch.tensor([prompt]), limits, seed=0)
        with torch.inference_mode():
            tokens: list[int] = method.run(request).new_tokens.tolist()
        return tokens

    def check(self, method: Any, prompt: list[int], got: list[int]) -> bool:
        """Whether the tokens are the Hugging Face engine's; the first that differs must be as good as its own."""
        expected = self.expect(method, prompt, len(got))
        if got == expected:
            return True
        first = next(place for place, (one, other) in enumerate(zip(got, expected, strict=True)) if one != other)
        logits = self.logits(method, prompt, expected[:first])
        gap = float(logits[expected[first]] - logits[got[first]])
        assert gap < NEAR, (method.label, len(prompt), first, gap, got, expected)
        return False

    def logits(self, method: Any, prompt: list[int], forced: list[int]) -> torch.Tensor:
        """The Hugging Face engine's, behind the prompt and these tokens."""
        kept: list[torch.Tensor] = []

        def force(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            kept.append(scores[0].clone())
            place = len(kept) - 1
            if place < len(forced):
                scores = torch.full_like(scores, -torch.inf)
                scores[0, forced[place]] = 0.0
            return scores

        limits = {"max_new_tokens": len(forced) + 1, "do_sample": False, "pad_token_id": 0, "logits_processor": [force]}
        with torch.inference_mode():
            method.run(Request(self.model, None, torch.tensor([prompt]), limits, seed=0))
        return kept[-1]


def serve(folder: Path, **options: Any) -> Served:
    from lazybench.serving.vllm import llm

    options = {"dtype": "float32", "max_num_seqs": 8, "disable_log_stats": True, **options}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Served(llm(str(folder), "taper", engine=options), model)


def save_checkpoint(folder: Path, family: str = "llama") -> Path:
    """A tiny checkpoint with a tokenizer that vLLM's attention on a CPU can run."""
    from transformers import AutoConfig

    save_tiny_checkpoint(folder)
    shape = {**SHAPE, "vocab_size": 512, "max_position_embeddings": 2048}
    config = AutoConfig.for_model(family, **shape, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    config.sliding_window = None
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.2 if "embed" in name or "lm_head" in name else 0.12)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    pytest.importorskip("vllm")
    return serve(save_checkpoint(tmp_path_factory.mktemp("served") / request.param, request.param))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-llama")
