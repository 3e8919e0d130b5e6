"""The two methods that run on the engine: LazyLLM, and static pruning that goes on after its one pruning."""

from __future__ import annotations

import pytest
import torch
from tiny_requests import tiny_request
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lazybench.errors import UserError
from lazybench.measure.fidelity import fidelity, record_reference
from lazybench.measure.protocol import measure
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.methods.request import Request
from lazybench.methods.static_pruning import StaticPruning
from lazybench.pruning.lazyllm import LazyLLM
from lazybench.pruning.schedule import PruningSchedule

LAYERS = 8


def lazyllm(layers: list[int], keep: list[float]) -> LazyLLMMethod:
    return LazyLLMMethod(PruningSchedule(layers=layers, keep=keep))


class _Watch(LogitsProcessor):
    def __init__(self) -> None:
        self.logits: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.logits.append(scores[0].clone())
        return scores


def logits_of(method: Method, request: Request) -> tuple[Tensor, Tensor]:
    """(steps, vocabulary) and the generated tokens (steps,)."""
    watch = _Watch()
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    kwargs["logits_processor"] = LogitsProcessorList([watch])
    response = method.run(Request(request.model, request.tokenizer, request.prompt_ids, kwargs, 0))
    return torch.stack(watch.logits), response.new_tokens


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize(
    "method", [lazyllm([2, 5], [1.0, 1.0]), StaticPruning("continue", 1.0)], ids=["lazyllm", "continue"]
)
def test_keep_one_is_the_baseline(method: Method, family: str) -> None:
    request = tiny_request(family)
    reference = record_reference(Baseline(), request)
    assert torch.equal(method.run(request).new_tokens, reference.tokens)
    judged = fidelity(method, request, reference)
    assert judged.top1 == 1.0
    assert judged.kl == pytest.approx(0.0, abs=1e-5)


def test_lazyllm_reports_its_trace() -> None:
    request = tiny_request()
    response = lazyllm([2, 5], [0.5, 0.5]).run(request)
    schedule = PruningSchedule((2, 5), (0.5, 0.5))
    with LazyLLM(request.model, schedule) as lazy:
        tokens = request.model.generate(request.prompt_ids, **request.generate_kwargs)[0, 60:]
    assert torch.equal(response.new_tokens, tokens)
    work, shares = response.work, shares_of(response.work, request)
    assert work.tokens_of_layer_runs == (60,) * 3 + (30,) * 3 + (15,) * 2
    assert shares.prompt_tokens_computed == lazy.trace.prompt_tokens_computed_mean
    assert shares.by_step[0] == (1.0, 0.5, 0.25)
    assert shares.by_stage == shares.by_step[-1]
    revived = sum(sum(step.revived) for step in lazy.trace.steps)
    assert revived > 0
    assert work.revived_tokens_per_step == revived / 5


def replay(request: Request, tokens: Tensor, kept: Tensor, first: int) -> Tensor:
    """Llama by hand, without any cache: ``first`` layers see everything, the others kept and generated tokens.

    Returns:
        (steps, vocabulary) logits of the last token as each of ``tokens`` was about to be generated.
    """
    model = request.model.model
    rows_of_steps = []
    for step in range(len(tokens)):
        ids = torch.cat([request.prompt_ids, tokens[None, :step]], dim=1)
        hidden = model.embed_tokens(ids)
        cos, sin = model.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
        for index, layer in enumerate(model.layers):
            if index == first:
                rows = torch.cat([kept, torch.arange(60, 60 + step)])
                hidden, cos, sin = hidden[:, rows], cos[:, rows], sin[:, rows]
            hidden = layer(hidden, position_embeddings=(cos, sin), attention_mask=None)
        rows_of_steps.append(request.model.lm_head(model.norm(hidden))[0, -1])
    return torch.stack(rows_of_steps)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
@torch.no_grad()
def test_continue_prunes_once_and_never_revives(keep: float) -> None:
    request = tiny_request()
    logits, tokens = logits_of(StaticPruning("continue", keep, depth=0.25), request)
    request.model.set_attn_implementation("eager")
    attention = request.model(request.prompt_ids, output_attentions=True).attentions[1][0, :, -1].mean(0)
    attention[-1] = torch.inf
    request.model.set_attn_implementation("sdpa")
    kept = attention.topk(round(keep * 60)).indices.sort().values
    torch.testing.assert_close(logits, replay(request, tokens, kept, first=2), atol=1e-4, rtol=1e-4)


def test_continue_counts_what_it_computed() -> None:
    request = tiny_request()
    shares = shares_of(StaticPruning("continue", 0.5, depth=0.25).run(request).work, request)
    assert shares.by_stage == (1.0, 0.5)
    assert shares.prompt_tokens_computed == pytest.approx((2 * 1.0 + 6 * 0.5) / LAYERS)
    assert set(shares.by_step) == {(1.0, 0.5)}


def test_engine_methods_under_the_clock_leave_the_model_plain() -> None:
    request = tiny_request()
    before = Baseline().run(request).new_tokens
    for method in (lazyllm([2], [0.5]), StaticPruning("continue")):
        measured = measure(method, request)
        assert 0 < measured.ttft_s < measured.generation_s
    assert torch.equal(Baseline().run(request).new_tokens, before)


def test_a_schedule_too_deep_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="pruning layer 9 is out of range for a model of 8 layers"):
        lazyllm([9], [0.5]).prepare(tiny_request().model)
    with pytest.raises(UserError, match="out of range"):
        StaticPruning("continue", depth=1.0).prepare(tiny_request().model)
