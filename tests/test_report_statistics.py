"""Intervals cover what they say, comparisons decide as often as they say: simulated on times and scores as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy
import pytest
from numpy.typing import NDArray

from lazybench.report.statistics import (
    Estimate,
    Tasks,
    by_task,
    compare_divergences,
    count,
    mean_score,
    median,
    median_ratio,
    relative_score,
)

TRIALS = 1_000
SURE = 0.93  # of a nominal 95%; the simulation's own error is 0.7 points
Random = numpy.random.Generator
Draw = Callable[[Random, int], NDArray[numpy.float64]]


def ratios(random: Random, samples: int, tasks: int = 1) -> Tasks:
    """Paired ratios around 1.5: samples differ, and now and then another process takes the machine from either side."""
    logs = random.normal(0, 0.05, samples * tasks) + 0.05 * random.standard_t(1.5, samples * tasks)
    return by_task(1.5 * numpy.exp(logs), numpy.arange(samples * tasks) // samples)


SCORES: dict[str, tuple[Draw, float]] = {
    "right or wrong": (lambda random, n: (random.random(n) < 0.3) * 1.0, 0.3),
    "partly right": (lambda random, n: (random.random(n) < 0.3) * random.uniform(0.1, 1, n), 0.165),
    "hardly ever right": (lambda random, n: (random.random(n) < 0.1) * 1.0, 0.1),
    "rouge": (lambda random, n: random.beta(4, 12, n), 0.25),
    "nearly always right": (lambda random, n: random.beta(9, 1, n), 0.9),
}


def pairs(random: Random, samples: int, lost: float, gained: float) -> tuple[Tasks, Tasks]:
    """Right or wrong: the plain model right in 40%, of which the method loses some; it gains some of the others."""
    plain = random.random(samples) < 0.4
    flips = random.random(samples)
    return by_task(numpy.where(plain, flips >= lost, flips < gained)), by_task(plain)


def estimates() -> Iterator[tuple[str, Callable[[Random], Estimate], float]]:
    """Every kind of estimate as it is drawn, and the truth."""
    for samples, tasks in [(10, 1), (15, 1), (30, 1), (4, 3), (20, 6)]:
        speedup = partial(ratios, samples=samples, tasks=tasks)
        yield f"speedup {samples} {tasks}", lambda random, draw=speedup: median_ratio(draw(random)), 1.5
    for samples in (20, 60):
        for name, (score, truth) in SCORES.items():
            draw = partial(score, n=samples)
            yield f"{name} {samples}", lambda random, draw=draw: mean_score(by_task(draw(random))), truth
        # the last three: a method that loses nothing, nearly everything, everything
        for lost, gained in [(0.1, 0), (0.01, 0), (0.3, 0.1), (0, 0), (0.95, 0), (1, 0)]:
            both = partial(pairs, samples=samples, lost=lost, gained=gained)
            truth = 1 - lost + gained * 0.6 / 0.4
            yield (
                f"{lost} lost {gained} gained {samples}",
                lambda random, both=both: relative_score(*both(random)),
                truth,
            )
    of, hits = numpy.repeat(numpy.arange(3), (8, 20, 40)), numpy.array([0.3, 0.5, 0.1])  # tasks of different sizes
    yield "a category", lambda random: mean_score(by_task(random.random(len(of)) < hits[of], of)), hits.mean()
    yield (
        "divergences",
        lambda random: compare_divergences(*map(numpy.exp, random.normal((0.2, 0), 0.6, (15, 2)).T)),
        math.exp(0.2),
    )


@pytest.mark.parametrize(("name", "draw", "truth"), estimates())
def test_intervals_cover(name: str, draw: Callable[[Random], Estimate], truth: float) -> None:
    """Of speedups from ten samples on, of scores from twenty."""
    random = numpy.random.default_rng(7)
    found = [draw(random) for _ in range(3 * TRIALS if name == "a category" else TRIALS)]
    assert not any(math.isnan(one.low) for one in found)
    assert sum(one.low <= truth <= one.high for one in found) >= SURE * len(found)


@pytest.mark.parametrize("samples", [10, 30])
def test_no_hit_at_all_proves_no_zero(samples: int) -> None:
    plain = by_task([1.0, 1.0, 1.0, 1.0, 0.0] * (samples // 5))
    found = relative_score(by_task([0.0] * samples), plain)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 1 / samples < found.high < 1


def test_the_baseline_relative_to_itself_is_one_and_has_no_interval() -> None:
    plain = by_task([1.0, 0.0] * 10)
    found = relative_score(plain, plain)
    assert (found.value, math.isnan(found.low), math.isnan(found.high)) == (1.0, True, True)
    assert relative_score(by_task(plain[0]), plain).low < 1  # another method that answered the same
    nothing = by_task([0.0] * 20)
    assert math.isnan(relative_score(nothing, nothing).value)
    assert not math.isfinite(relative_score(plain, nothing).value)


def test_few_samples_have_no_interval() -> None:
    lone = by_task([0.0] * 12, [0] * 11 + [1])  # a task of one sample knows no spread
    few = by_task([1.2, 1.5, 1.4])
    for found, value in ((median_ratio(few), 1.4), (mean_score(few), 4.1 / 3), (mean_score(lone), 0.0)):
        assert found.value == pytest.approx(value)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert math.isnan(compare_divergences([1.0] * 9, [2.0] * 9).low)


@pytest.mark.parametrize("score", [0.1, 0.3, 3 / 7, 0.5, 0.86])  # the variance of some is nothing but rounding
def test_samples_that_are_all_alike_still_have_an_interval_whatever_they_score(score: float) -> None:
    estimate = mean_score(by_task([score] * 24))
    assert estimate.high - estimate.low > 0.2
    assert relative_score(by_task([score] * 20), by_task([score] * 20)).low < 0.99


def test_an_outlier_moves_the_ratio_of_sums_and_not_the_median() -> None:
    quiet = median_ratio(by_task([1.5, 1.52, 1.48, 1.51, 1.49] * 2))
    loud = median_ratio(by_task([1.5, 1.52, 1.48, 1.51, 1.49] * 2 + [9.0]))
    assert loud.value == pytest.approx(quiet.value, abs=0.02)


def test_tasks_weigh_the_same() -> None:
    values = [1.0] * 10 + [3.0] * 2 + [2.0] * 2
    tasks = by_task(values, ["a"] * 10 + ["b"] * 2 + ["c"] * 2)
    assert (median(tasks).value, count(tasks)) == (2.0, 14)
    assert mean_score(by_task([numpy.nan, 0.5, 0.7])).value == pytest.approx(0.6)


def test_an_interval_leaves_a_value_out_or_says_nothing() -> None:
    assert Estimate(1.2, 1.1, 1.3).excludes(1)
    assert Estimate(0.8, 0.7, 0.9).excludes(1)
    assert not Estimate(1.2, 0.9, 1.3).excludes(1)
    assert not Estimate(1.2).excludes(1)
