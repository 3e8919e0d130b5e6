"""``lazybench.prune``: one word for every method that is a policy, with the parameters of the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_requests import tiny_request

import lazybench
from lazybench import LazyLLM, UserError, prune
from lazybench.methods import METHODS, PolicyMethod
from lazybench.pruning import Policy, Pruned

POLICIES = [name for name, kind in METHODS.items() if kind.run is PolicyMethod.run]


@pytest.mark.parametrize("name", [*POLICIES, "static_pruning"])
def test_every_policy_prunes_as_its_method_does(name: str) -> None:
    params = {"variant": "continue"} if name == "static_pruning" else {}
    request = tiny_request(num_hidden_layers=12)
    with prune(request.model, name, **params):
        tokens = request.model.generate(request.prompt_ids, **request.generate_kwargs)
    expected = lazybench.methods.build(name, params).run(request).new_tokens
    assert torch.equal(tokens[0, request.prompt_ids.shape[1] :], expected)


def test_lazyllm_is_the_papers() -> None:
    request = tiny_request()
    outputs = []
    for context in (prune(request.model), LazyLLM(request.model, "paper")):
        with context:
            outputs.append(request.model.generate(request.prompt_ids, **request.generate_kwargs))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("tapr", {}, "did you mean taper"),
        ("taper", {"prest": "fast"}, "did you mean preset"),
        ("taper", {"preset": "fats"}, "did you mean fast"),
        ("gemfilter", {}, "prune.. takes one of .*taper"),
        ("static_pruning", {}, "does more than prune"),
    ],
)
def test_what_cannot_prune_is_one_line(name: str, params: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        prune(tiny_request().model, name, **params)


@pytest.mark.parametrize("start", [prune, LazyLLM, Pruned])
def test_what_is_no_model_is_one_line(start: Callable[..., object]) -> None:
    how = {prune: "taper", LazyLLM: "paper", Pruned: Policy()}[start]
    with pytest.raises(UserError, match="takes a transformers model, not str"):
        start("gpt2", how)
