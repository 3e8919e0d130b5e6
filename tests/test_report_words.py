"""A run in plain words: sooner or later, how much, and neither where the clock decided nothing."""

from __future__ import annotations

from dataclasses import replace

from synthetic_results import made_up_records

from lazybench.report.summary import summarise
from lazybench.report.words import plain_words

PLAIN = [record for record in made_up_records(3) if (record.task, record.method) == ("qasper", "baseline")]


def method(name: str, speedups: tuple[float, ...], same: float | None):
    return [
        replace(record, method=name, ttft_s=record.ttft_s / speedup, fidelity_top1=same)
        for record, speedup in zip(PLAIN, speedups, strict=True)
    ]


def test_the_fastest_comes_first_and_a_slower_one_is_later():
    slow, fast = method("slow", (0.5, 0.5, 0.5), 1.0), method("lazyllm", (1.5, 1.5, 1.5), 0.96)
    assert plain_words(summarise([*PLAIN, *slow, *fast])) == [
        "LazyLLM: first token 1.5x sooner, 96% of the plain model's tokens",
        "slow: first token 2.0x later, 100% of the plain model's tokens",
    ]


def test_what_the_clock_did_not_decide_is_neither():
    (line,) = plain_words(summarise([*PLAIN, *method("noisy", (0.8, 1.1, 1.3), None)]))
    assert line == "noisy: first token neither sooner nor later for certain"


def test_several_tasks_and_dozens_of_settings_are_left_to_the_table():
    assert plain_words(summarise(made_up_records(2))) == []
    many = [replace(record, variant=f"keep=0.{place}") for place in range(9) for record in method("m", (2, 2, 2), 0.5)]
    assert plain_words(summarise([*PLAIN, *many])) == []
    assert plain_words(summarise([replace(record, ttft_s=None) for record in PLAIN])) == []
