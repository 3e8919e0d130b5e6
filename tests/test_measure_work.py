"""From work to the FLOPs ratio and shares: probes, dropped MLPs and other models all count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_requests import tiny_request

from lazybench.measure.work import shares_of
from lazybench.methods.request import Work
from lazybench.models.flops import full_prefill_flops, prefill_flops

REQUEST = tiny_request(new_tokens=1)  # 60 tokens, 8 layers
FULL = full_prefill_flops(REQUEST.model.config, 60)
PLAIN = Work((60,) * 8)


def test_everything_before_the_first_token_counts() -> None:
    probe = shares_of(Work((60,) * 2 + (30,) * 8, by_stage=(1.5, 0.5)), REQUEST)
    assert probe.prompt_tokens_computed == pytest.approx(0.25 + 0.5)
    assert probe.by_stage == (1.5, 0.5)
    half = full_prefill_flops(REQUEST.model.config, 30)
    assert probe.flops_ratio == pytest.approx(FULL / (FULL / 4 + half))
    assert shares_of(replace(PLAIN, other_flops=FULL), REQUEST).flops_ratio == pytest.approx(0.5)


def test_tokens_dropped_before_the_mlp_save_the_mlp_alone() -> None:
    dropped = shares_of(replace(PLAIN, mlp_tokens_of_layer_runs=(60,) * 4 + (0,) * 4), REQUEST)
    attention_alone = prefill_flops(REQUEST.model.config, [60], [0])
    assert dropped.flops_ratio == pytest.approx(FULL / (FULL / 2 + 4 * attention_alone))
    assert dropped.prompt_tokens_computed == 1.0


def test_a_method_that_revives_says_its_own_share() -> None:
    work = Work(
        (60,) * 4 + (30,) * 4, prompt_tokens_computed=0.8, by_stage=(1.0, 0.6), by_step=((1.0, 0.5), (1.0, 0.6))
    )
    shares = shares_of(work, REQUEST)
    assert (shares.prompt_tokens_computed, shares.by_stage, shares.by_step[0]) == (0.8, (1.0, 0.6), (1.0, 0.5))
    assert shares.flops_ratio == shares_of(Work(work.tokens_of_layer_runs), REQUEST).flops_ratio
