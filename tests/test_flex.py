"""FlexAttention gives what the engine's own ways to softcap, sinks, windows and padding give."""

from __future__ import annotations

import pytest
import torch
from tiny_models import generate_logits, left_padded, random_prompt, tiny_model

from lazybench.pruning import flex
from lazybench.pruning.budgets import Ratio
from lazybench.pruning.engine import Pruned
from lazybench.pruning.placement import At
from lazybench.pruning.policy import Policy
from lazybench.pruning.revival import NEVER, Revival

PROMPT = random_prompt(40, seed=3)
PRUNED = {"placement": At((0, 2)), "budget": Ratio(0.6)}
POLICIES = {
    "paper": Policy(**PRUNED, revival=Revival()),
    "padded": Policy(**PRUNED, revival=Revival(2, "computed", padded=True)),
    "never revived": Policy(**PRUNED, revival=NEVER),
}


@pytest.mark.parametrize(
    ("family", "policy"),
    [
        *((family, "paper") for family in ("llama", "gemma2", "gemma3_text", "gpt_oss")),
        ("gemma2", "padded"),
        ("gemma3_text", "never revived"),
    ],
)
def test_equals_the_other_ways(family, policy, monkeypatch):
    prompts, mask = left_padded([PROMPT, random_prompt(23, seed=4)])
    calls, results = [], []
    attend = flex.attend
    monkeypatch.setattr(flex, "attend", lambda *args: calls.append(args[3]) or attend(*args))
    for implementation in ("sdpa", flex.NAME):
        model = tiny_model(family, attn_implementation="eager")
        model.config._attn_implementation_internal = implementation
        assert not calls
        with Pruned(model, POLICIES[policy]):
            one = generate_logits(model, PROMPT, 4)
            both = generate_logits(model, prompts, 4, attention_mask=mask)
        assert model.config._attn_implementation == implementation
        results.append((*one, *both))
    assert calls
    for measured, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(measured, expected, atol=2e-5, rtol=1e-4)


def test_a_plain_causal_prompt_stays_with_sdpa(monkeypatch):
    model = tiny_model("llama")
    model.config._attn_implementation_internal = flex.NAME
    monkeypatch.setattr(flex, "attend", lambda *_: pytest.fail("SDPA's own kernel is at hand"))
    with Pruned(model, POLICIES["never revived"]):
        generate_logits(model, PROMPT, 3)
