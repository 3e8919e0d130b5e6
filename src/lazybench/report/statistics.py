"""Estimates, intervals and tests of the report: every number with brackets around it comes from here.

Samples are what is drawn from a population, and a category's tasks weigh the same.
``tests/test_report_statistics.py`` simulates how often each interval covers the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
LEAST_SAMPLES = 10  # fewer know too little of the spread to have an interval
ROUNDING = 1e-12
KL_FLOOR = 1e-4  # nats; below it a sample counts as not harmed: its logarithm would be the precision's
Array = NDArray[numpy.float64]
Tasks = Sequence[Array]  # of each task its samples' values


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; below ten samples it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def columns(self, name: str) -> dict[str, float]:
        """``NAME``, ``NAME_low`` and ``NAME_high`` of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def excludes(self, value: float) -> bool:
        """Whether there is an interval, and it leaves this value out."""
        return self.high < value or self.low > value


def by_task(values: ArrayLike, tasks: ArrayLike | None = None) -> list[Array]:
    """One value for each sample, split by its task; missing ones (NaN) are left out. Without tasks: all of one.

    Args:
        values: (samples,)
        tasks: (samples,) names or numbers
    """
    numbers = numpy.asarray(values, dtype=float)
    names = numpy.zeros(len(numbers)) if tasks is None else numpy.asarray(tasks)
    there = ~numpy.isnan(numbers)
    found, task = numpy.unique(names[there], return_inverse=True)
    return [numbers[there][task == place] for place in range(len(found))]


def count(tasks: Tasks) -> int:
    """How many samples."""
    return sum(map(len, tasks))


def mean(tasks: Tasks) -> float:
    """The mean over the tasks of their samples' mean; NaN of nothing."""
    return float(numpy.mean([task.mean() for task in tasks])) if tasks else math.nan


def mean_score(tasks: Tasks) -> Estimate:
    """The mean of scores or shares, 0..1, with Wilson's interval for the effective number of samples.

    That number is how many yes-or-no answers would have the variance seen (Korn and Graubard, 1998), so that the
    interval holds for many zeros and few hits, never leaves 0..1, and has a width where every sample scored the same.
    """
    value = mean(tasks)
    if not _enough(tasks):
        return Estimate(value)
    variance = _variance_of_mean(tasks)
    # equal scores have a variance of nothing but rounding
    known = variance > ROUNDING * value * (1 - value)
    effective = value * (1 - value) / variance if known and 0 < value < 1 else count(tasks)
    squared = _quantile(tasks) ** 2
    centre = (value + squared / (2 * effective)) / (1 + squared / effective)
    half = math.sqrt(squared * (value * (1 - value) / effective + squared / (4 * effective**2)))
    half /= 1 + squared / effective
    return Estimate(value, max(0.0, centre - half), min(1.0, centre + half))


def median(tasks: Tasks) -> Estimate:
    """The median with Woodruff's (1952) interval: the values at the shares around one half; each task weighs the same.

    Nothing is asked of the distribution: an outlier moves it no further than any other value.
    """
    if not tasks:
        return Estimate(math.nan)
    values = numpy.concatenate(tasks)
    weights = numpy.concatenate([numpy.full(len(task), 1 / (len(tasks) * len(task))) for task in tasks])

    def at(share: float) -> tuple[float, float]:
        """The first of the values at which so much of the weight is reached, from below and from above."""
        reached = max(share - 1e-9, 0.0)  # weights sum to shares but for rounding
        low, high = (numpy.quantile(of, reached, weights=weights, method="inverted_cdf") for of in (values, -values))
        return float(low), float(-high)

    value = sum(at(0.5)) / 2
    if not _enough(tasks):
        return Estimate(value)
    variance = sum(0.25 / (len(task) - 1) for task in tasks) / len(tasks) ** 2  # a fair coin's for each sample
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count(tasks) - len(tasks))
    return Estimate(value, *at(0.5 - quantile * math.sqrt(variance)))


def median_ratio(tasks: Tasks) -> Estimate:
    """The median of paired ratios, by their logarithms: the ratio's inverse has the inverse bounds."""
    with numpy.errstate(divide="ignore"):  # a ratio of 0 stays one
        return _exponential(median([numpy.log(task) for task in tasks]))


def relative_score(method: Tasks, baseline: Tasks) -> Estimate:
    """The ratio of two mean scores over the same samples, with Fieller's interval; none below ten samples.

    The variance counts one sample more that the method lost and one that it gained, as Bonett and Price (2012) do for
    differences of paired shares: answers that were all alike, or all wrong, don't prove that others will be. The bound
    is infinite where the baseline's own score may be zero. Of the baseline itself, the same object, it is 1 and sure.
    """
    above, below = mean(method), mean(baseline)
    if method is baseline and below > 0:
        return Estimate(1.0)
    if not below:
        return Estimate(math.inf if above else math.nan)
    if not _enough(method):
        return Estimate(above / below)
    squared = _quantile(method) ** 2
    one_more = (max(float(task.max()) for task in (*method, *baseline)) / count(method)) ** 2
    aa, bb = (squared * (_variance_of_mean(tasks) + one_more) for tasks in (method, baseline))
    both = [score + other for score, other in zip(method, baseline, strict=True)]
    ab = squared * (_variance_of_mean(both) - _variance_of_mean(method) - _variance_of_mean(baseline)) / 2
    if below**2 <= bb:
        return Estimate(above / below, 0.0, math.inf)
    centre, square = (above * below - ab) / (below**2 - bb), (above**2 - aa) / (below**2 - bb)
    half = math.sqrt(max(centre**2 - square, 0.0))
    return Estimate(above / below, max(0.0, centre - half), centre + half)


def compare_divergences(first: ArrayLike, second: ArrayLike) -> Estimate:
    """The geometric mean of the ratio of two methods' KL divergences: below 1 the first follows the plain model closer.

    Args:
        first, second: nats, one for each sample, in the same order.  # (samples,)
    """
    one, other = (numpy.log(numpy.maximum(numpy.asarray(values, dtype=float), KL_FLOOR)) for values in (first, second))
    logs = (one - other)[~numpy.isnan(one - other)]
    if not len(logs):
        return Estimate(math.nan)
    value, spread = float(logs.mean()), float(logs.std(ddof=1)) if len(logs) > 1 else math.nan
    estimate = Estimate(value)
    if len(logs) >= LEAST_SAMPLES and spread:  # differences that were all alike don't prove that others will be
        low, high = stats.t.interval(CONFIDENCE, len(logs) - 1, value, spread / math.sqrt(len(logs)))
        estimate = Estimate(value, float(low), float(high))
    return _exponential(estimate)


def divergence(values: ArrayLike) -> Estimate:
    """The geometric mean of KL divergences, in nats; every sample weighs the same.

    Args:
        values: one for each sample, NaN where there is none.  # (samples,)
    """
    return compare_divergences(values, numpy.ones_like(values, dtype=float))


def _exponential(logs: Estimate) -> Estimate:
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def _enough(tasks: Tasks) -> bool:
    """Whether these samples have an interval."""
    return count(tasks) >= LEAST_SAMPLES and all(len(task) > 1 for task in tasks)


def _variance_of_mean(tasks: Tasks) -> float:
    return float(sum(task.var(ddof=1) / len(task) for task in tasks)) / len(tasks) ** 2


def _freedom(tasks: Tasks) -> float:
    """Degrees of freedom of the variance of the mean over tasks (Satterthwaite, 1946)."""
    parts = [float(task.var(ddof=1)) / len(task) for task in tasks]
    squares = sum(part**2 / (len(task) - 1) for part, task in zip(parts, tasks, strict=True))
    return sum(parts) ** 2 / squares if squares else sum(len(task) - 1 for task in tasks)


def _quantile(tasks: Tasks) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, _freedom(tasks)))
