"""Intervals cover what they say and claims err as rarely as they say: simulated, on times and scores as they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest
from numpy.typing import NDArray

from lazybench.report.statistics import (
    INTERVAL,
    RANGE,
    Estimate,
    Measured,
    clock_decides,
    compare_divergences,
    holm,
    mean_score,
    median,
    median_ratio,
    p_not_worse,
    p_worse,
    relative_score,
)

TRIALS = 1_000
SURE = 0.93  # of a nominal 95%; the simulation's own error is 0.7 points
Random = numpy.random.Generator
Draw = Callable[[Random, int], NDArray[numpy.float64]]


def coverage(estimate: Callable[[Random], Estimate], truth: float, trials: int = TRIALS) -> float:
    random = numpy.random.default_rng(7)
    found = [estimate(random) for _ in range(trials)]
    assert {one.kind for one in found} == {INTERVAL}
    return sum(one.low <= truth <= one.high for one in found) / trials


def ratios(random: Random, samples: int, repeats: int = 1, tasks: int = 1) -> Measured:
    """Paired ratios around 1.5: samples differ, and now and then another process takes the machine from either side."""
    sample = numpy.repeat(numpy.arange(samples * tasks), repeats)
    logs = random.normal(0, 0.05, samples * tasks)[sample] + 0.05 * random.standard_t(1.5, len(sample))
    return Measured.of(1.5 * numpy.exp(logs), sample, sample // samples)


@pytest.mark.parametrize(
    ("samples", "repeats", "tasks"), [(10, 1, 1), (10, 3, 1), (15, 2, 1), (30, 1, 1), (4, 1, 3), (20, 1, 6)]
)
def test_intervals_of_speedups_cover_from_ten_samples_on(samples: int, repeats: int, tasks: int) -> None:
    assert coverage(lambda random: median_ratio(ratios(random, samples, repeats, tasks)), 1.5) >= SURE


SCORES: dict[str, tuple[Draw, float]] = {
    "right or wrong": (lambda random, n: (random.random(n) < 0.3) * 1.0, 0.3),
    "partly right": (lambda random, n: (random.random(n) < 0.3) * random.uniform(0.1, 1, n), 0.165),
    "hardly ever right": (lambda random, n: (random.random(n) < 0.1) * 1.0, 0.1),
    "rouge": (lambda random, n: random.beta(4, 12, n), 0.25),
    "nearly always right": (lambda random, n: random.beta(9, 1, n), 0.9),
}


@pytest.mark.parametrize("samples", [20, 60])
@pytest.mark.parametrize("name", SCORES)
def test_intervals_of_scores_cover_from_twenty_samples_on(name: str, samples: int) -> None:
    draw, truth = SCORES[name]
    assert coverage(lambda random: mean_score(Measured.of(draw(random, samples))), truth) >= SURE


def test_intervals_of_a_categorys_score_cover_with_tasks_of_different_sizes() -> None:
    sizes, hits = (8, 20, 40), (0.3, 0.5, 0.1)
    tasks = numpy.repeat(numpy.arange(3), sizes)

    def draw(random: Random) -> Estimate:
        return mean_score(Measured.of(random.random(len(tasks)) < numpy.array(hits)[tasks], None, tasks))

    assert coverage(draw, float(numpy.mean(hits)), trials=3 * TRIALS) >= SURE


def pairs(random: Random, samples: int, lost: float, gained: float) -> tuple[Measured, Measured]:
    """Right or wrong: the plain model right in 40%, of which the method loses some; it gains some of the others."""
    plain = random.random(samples) < 0.4
    flips = random.random(samples)
    return Measured.of(numpy.where(plain, flips >= lost, flips < gained)), Measured.of(plain)


# the last three: a method that loses nothing, nearly everything, everything
@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0), (0.01, 0), (0.3, 0.1), (0, 0), (0.95, 0), (1, 0)])
@pytest.mark.parametrize("samples", [20, 60])
def test_intervals_of_relative_scores_cover(samples: int, lost: float, gained: float) -> None:
    truth = 1 - lost + gained * 0.6 / 0.4
    assert coverage(lambda random: relative_score(*pairs(random, samples, lost, gained)), truth) >= SURE


@pytest.mark.parametrize("samples", [10, 30])
def test_no_hit_at_all_proves_no_zero(samples: int) -> None:
    plain = Measured.of([1.0, 1.0, 1.0, 1.0, 0.0] * (samples // 5))
    found = relative_score(Measured.of([0.0] * samples), plain)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 1 / samples < found.high < 1


def test_the_baseline_relative_to_itself_is_one_and_has_no_interval() -> None:
    plain = Measured.of([1.0, 0.0] * 10)
    found = relative_score(plain, plain)
    assert (found.value, math.isnan(found.low), math.isnan(found.high)) == (1.0, True, True)
    assert relative_score(Measured.of(plain.values), plain).low < 1  # another method that answered the same
    nothing = Measured.of([0.0] * 20)
    assert math.isnan(relative_score(nothing, nothing).value)


@pytest.mark.parametrize("samples", [30, 100, 300, 1000])
@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.05, 0.04 * 0.4 / 0.6), (0.02, 0.01 * 0.4 / 0.6)])
def test_a_loss_of_one_percent_is_seldom_called_less(samples: int, lost: float, gained: float) -> None:
    random = numpy.random.default_rng(7)
    found = [pairs(random, samples, lost, gained) for _ in range(TRIALS)]
    assert sum(p_not_worse(*pair) < 0.05 for pair in found) <= 0.07 * TRIALS
    assert sum(p_worse(*pair) < 0.05 for pair in found) <= 0.07 * TRIALS


def test_claims_are_made_where_the_samples_suffice() -> None:
    same = Measured.of([1.0, 0.0] * 400)
    assert p_not_worse(same, same) < 0.05 < p_worse(same, same)
    few = Measured.of([1.0, 0.0] * 15)  # no loss seen in thirty samples: one of fifty is easily missed
    assert p_not_worse(few, few) > 0.05
    half = Measured.of([0.5, 0.0] * 15)
    assert p_worse(half, few) < 0.05
    fewer = Measured.of([1.0, 0.0] * 14)
    assert (p_not_worse(fewer, fewer), p_worse(Measured.of([0.0] * 28), fewer)) == (1.0, 1.0)
    nothing = Measured.of([0.0] * 40)
    assert (p_not_worse(nothing, nothing), p_worse(nothing, nothing)) == (1.0, 1.0)


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_few_samples_have_their_lowest_and_highest_value() -> None:
    assert median_ratio(Measured.of([1.2, 1.5, 1.4])) == Estimate(
        pytest.approx(1.4), pytest.approx(1.2), pytest.approx(1.5), RANGE
    )
    assert mean_score(Measured.of([0.0, 1.0, 0.5])) == Estimate(0.5, 0.0, 1.0, RANGE)
    lone = Measured.of([0.0] * 12, None, [0] * 11 + [1])  # a task of one sample knows no spread
    assert mean_score(lone).kind == RANGE


@pytest.mark.parametrize("score", [0.1, 0.3, 3 / 7, 0.5, 0.86])  # the variance of some is nothing but rounding
def test_samples_that_are_all_alike_still_have_an_interval_whatever_they_score(score: float) -> None:
    estimate = mean_score(Measured.of([score] * 24))
    assert estimate.high - estimate.low > 0.2


def test_samples_that_are_all_alike_still_have_an_interval() -> None:
    estimate = mean_score(Measured.of([1.0] * 20))
    assert estimate.value == 1.0
    assert estimate.low < 0.87
    assert relative_score(Measured.of([1.0] * 20), Measured.of([1.0] * 20)).low < 0.97


def test_an_outlier_moves_the_ratio_of_sums_and_not_the_median() -> None:
    quiet = median_ratio(Measured.of([1.5, 1.52, 1.48, 1.51, 1.49] * 2))
    loud = median_ratio(Measured.of([1.5, 1.52, 1.48, 1.51, 1.49] * 2 + [9.0]))
    assert loud.value == pytest.approx(quiet.value, abs=0.02)


def test_tasks_weigh_the_same_and_repeats_never_make_samples() -> None:
    values = [1.0] * 10 + [3.0] * 2 + [2.0] * 2
    tasks = [0] * 10 + [1] * 2 + [2] * 2
    assert median(Measured.of(values, None, tasks)).value == 2.0
    repeated = Measured.of(numpy.repeat([1.1, 1.3, 1.2], 10), numpy.repeat([0, 1, 2], 10))
    assert (repeated.count, median(repeated).kind) == (3, RANGE)


def test_repeats_of_a_sample_widen_the_interval() -> None:
    random = numpy.random.default_rng(7)
    base = numpy.exp(random.normal(0.4, 0.02, 20))
    noise = numpy.exp(random.normal(0, 0.3, (20, 2)))
    quiet = median_ratio(Measured.of(base))
    loud = median_ratio(Measured.of((base[:, None] * noise).ravel(), numpy.repeat(numpy.arange(20), 2)))
    assert math.log(loud.high / loud.low) > 2 * math.log(quiet.high / quiet.low)


def test_what_the_clock_cannot_tell_is_said() -> None:
    def decided(values: list[float], samples: list[int]) -> bool:
        measured = Measured.of(values, samples)
        return clock_decides(measured, median_ratio(measured))

    assert decided([1.5, 1.6, 1.4, 1.5], [0, 0, 1, 1])
    assert not decided([0.9, 1.6, 1.4, 1.5], [0, 1, 2, 3])  # 1 lies in between
    assert not decided([1.05, 1.3, 1.02, 1.4], [0, 0, 1, 1])  # repeats differ by 30%, the effect is 18%
    assert decided([1.5], [0])


def test_a_comparison_names_the_samples_that_would_decide_it() -> None:
    random = numpy.random.default_rng(7)
    logs = random.normal(math.log(0.8), 0.5, 40)
    found = compare_divergences(numpy.exp(logs), numpy.ones(40))
    assert found.estimate.value == pytest.approx(math.exp(logs.mean()))
    assert found.samples_to_decide == math.ceil((2.80159 * logs.std(ddof=1) / logs.mean()) ** 2)
    # with as many samples as it asks for, about 80% of comparisons are decided
    needed = math.ceil((2.80159 * 0.5 / math.log(0.8)) ** 2)
    decided = sum(
        compare_divergences(numpy.exp(random.normal(math.log(0.8), 0.5, needed)), numpy.ones(needed)).estimate.high < 1
        for _ in range(TRIALS)
    )
    assert decided / TRIALS == pytest.approx(0.8, abs=0.05)


def test_comparisons_cover() -> None:
    assert (
        coverage(
            lambda random: (
                compare_divergences(
                    numpy.exp(random.normal(0.2, 0.6, 15)), numpy.exp(random.normal(0, 0.6, 15))
                ).estimate
            ),
            math.exp(0.2),
        )
        >= SURE
    )
