"""Methods on layers with windows and prompts of unequal lengths: each row equals the reference of its own prompt."""

from __future__ import annotations

import pytest
import torch
from reference import Reference
from test_exactness import replay
from tiny_models import float64_model, generate_logits, left_padded, random_prompt

from lazybench.methods import PolicyMethod, build
from lazybench.pruning.engine import Pruned

WINDOWS = {"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3}
METHODS = {
    "taper": {"depths": [0.2, 0.6], "keep": [0.6, 0.6], "window": 4, "chunk": 2, "first": 1, "last": 2},
    "dash": {"keep": 0.4},
    "lazyllm": {"pruning": {"depths": [0.2, 0.6], "keep": [0.6, 0.6]}},
    "uniprefill": {"mass": 0.8, "window": 4, "block": 2, "first": 2, "last": 2},
    "pyramid_infer": {"keep": 0.4, "least": 1, "interval": 2},
    "fastkv": {"propagate": 0.4, "retain": 1, "window": 2, "pool": 3},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("overrides", [{}, WINDOWS], ids=["full attention", "windows"])
def test_each_row_of_a_padded_batch_equals_the_reference_of_its_prompt(name, overrides):
    model = float64_model("qwen2", **(overrides or {"num_hidden_layers": 6, "use_sliding_window": False}))
    method = build(name, METHODS[name])
    assert isinstance(method, PolicyMethod)
    policy = method.for_model(model)
    if overrides and name in ("taper", "lazyllm"):
        assert policy.layers == (1, 3)
    prompts = [random_prompt(tokens, tokens) for tokens in (22, 35, 9)]
    padded, mask = left_padded(prompts)
    with Pruned(model, policy) as run:
        tokens, logits = generate_logits(model, padded, 4, attention_mask=mask)
    assert run.trace.steps[0].computed[-1] < mask.sum()
    for row, prompt in enumerate(prompts):
        reference = Reference(model, policy)
        expected = replay(reference, prompt[0].tolist(), tokens[row, padded.shape[1] :].tolist())
        assert reference.margin > 1e-9, "two tokens tie: choose another prompt"
        torch.testing.assert_close(logits[:, row], expected, rtol=0, atol=1e-9)
