"""Estimates, intervals and tests of the report: every number with brackets around it comes from here.

Samples are what is drawn from a population; a sample's repeats belong together, and a category's tasks weigh the same.
``tests/test_report_statistics.py`` simulates how often each interval covers the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the number of samples that would decide a comparison
LEAST_SAMPLES = 10  # fewer know too little of the spread: their bounds are the lowest and the highest value
LEAST_SAMPLES_OF_CLAIM = 30
ALLOWED_LOSS = 0.01  # of the baseline's score
ROUNDING = 1e-12
KL_FLOOR = 1e-4  # nats; below it a sample counts as not harmed: its logarithm would be the precision's
INTERVAL, RANGE = "95% interval", "lowest to highest"
Array = NDArray[numpy.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its bounds: a 95% interval, or the lowest and highest value of a few samples (``kind``)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    kind: str = RANGE


@dataclass(frozen=True)
class Measured:
    """One value for each record, with the sample and the task that it belongs to.  # (records,) each"""

    values: Array
    samples: NDArray[numpy.int_]
    tasks: NDArray[numpy.int_]

    @classmethod
    def of(cls, values: ArrayLike, samples: ArrayLike | None = None, tasks: ArrayLike | None = None) -> Measured:
        """Values that are missing (NaN) are left out. Without ids: a sample for each value, all of one task."""
        numbers = numpy.asarray(values, dtype=float)
        there = ~numpy.isnan(numbers)
        names = numpy.arange(len(numbers)) if samples is None else numpy.asarray(samples)
        groups = numpy.zeros(len(numbers), dtype=int) if tasks is None else numpy.asarray(tasks)
        _, task = numpy.unique(groups[there], return_inverse=True)
        found, name = numpy.unique(names[there], return_inverse=True)
        _, sample = numpy.unique(task * len(found) + name, return_inverse=True)  # one id in two tasks: two samples
        return cls(numbers[there], sample, task)

    def by_task(self, values: Array | None = None) -> list[Array]:
        """For each task its samples' means over their repeats.  # (samples of the task,) each"""
        values = self.values if values is None else values
        repeats = numpy.bincount(self.samples)
        means = numpy.bincount(self.samples, values) / numpy.maximum(repeats, 1)
        task_of_sample = numpy.zeros(len(repeats), dtype=int)
        task_of_sample[self.samples] = self.tasks
        return [means[task_of_sample == task] for task in range(task_of_sample.max(initial=-1) + 1)]

    @property
    def count(self) -> int:
        """How many samples."""
        return len(numpy.unique(self.samples))

    @property
    def kind(self) -> str:
        """What bounds these samples allow."""
        enough = self.count >= LEAST_SAMPLES and all(len(task) > 1 for task in self.by_task())
        return INTERVAL if enough else RANGE


def mean(measured: Measured) -> float:
    """The mean over the tasks of their samples' mean; NaN of nothing."""
    tasks = measured.by_task()
    return float(numpy.mean([task.mean() for task in tasks])) if tasks else math.nan


def mean_score(measured: Measured) -> Estimate:
    """The mean of scores or shares, 0..1, with Wilson's interval for the effective number of samples.

    That number is how many yes-or-no answers would have the variance seen (Korn and Graubard, 1998), so that the
    interval holds for many zeros and few hits, never leaves 0..1, and has a width where every sample scored the same.
    """
    value, tasks = mean(measured), measured.by_task()
    if measured.kind == RANGE:
        return _range(value, numpy.concatenate(tasks) if tasks else numpy.empty(0))
    variance = _variance_of_mean(tasks)
    # equal scores have a variance of nothing but rounding
    known = variance > ROUNDING * value * (1 - value)
    effective = value * (1 - value) / variance if known and 0 < value < 1 else measured.count
    squared = _quantile(tasks) ** 2
    centre = (value + squared / (2 * effective)) / (1 + squared / effective)
    half = math.sqrt(squared * (value * (1 - value) / effective + squared / (4 * effective**2)))
    half /= 1 + squared / effective
    return Estimate(value, max(0.0, centre - half), min(1.0, centre + half), INTERVAL)


def median(measured: Measured) -> Estimate:
    """The weighted median of all records, with Woodruff's (1952) interval: values at the shares around one half.

    The share below the median has a variance between samples, so that repeats count for what they tell; each task has
    the same weight. Nothing is asked of the distribution: an outlier moves it no further than any other value.
    """
    tasks = measured.by_task()
    if not tasks:
        return Estimate(math.nan)
    repeats = numpy.bincount(measured.samples)
    sizes = numpy.array([len(task) for task in tasks])
    weights = 1 / (len(tasks) * sizes[measured.tasks] * repeats[measured.samples])
    order = numpy.argsort(measured.values, kind="stable")
    values, weights = measured.values[order], weights[order]
    value = (_at_share(values, weights, 0.5) - _at_share(-values[::-1], weights[::-1], 0.5)) / 2
    if measured.kind == RANGE:
        return _range(value, values)
    below = (measured.values < value) + 0.5 * (measured.values == value)
    # noise of the clock alone splits repeats by chance: the variance is at least that of a fair coin for each
    coin = 0.25 / repeats.mean()
    shares = measured.by_task(below)
    spreads = [max(share.var(ddof=1), coin * len(share) / (len(share) - 1)) / len(share) for share in shares]
    variance = sum(spreads) / len(tasks) ** 2
    share = 0.5 - _quantile(shares) * math.sqrt(variance)
    low, high = _at_share(values, weights, share), -_at_share(-values[::-1], weights[::-1], share)
    return Estimate(value, low, high, INTERVAL)


def median_ratio(ratios: Measured) -> Estimate:
    """The median of paired ratios, by their logarithms: the ratio's inverse has the inverse bounds."""
    logs = median(Measured(numpy.log(ratios.values), ratios.samples, ratios.tasks))
    return _exponential(logs)


def clock_decides(ratios: Measured, estimate: Estimate) -> bool:
    """Whether the times tell a ratio from 1: its bounds leave 1 out, and repeats of a sample differ less than it does.

    One single measurement is taken as it is: it knows of no spread.
    """
    if len(ratios.values) > 1 and estimate.low <= 1 <= estimate.high:
        return False
    logs = numpy.log(ratios.values)
    highest, lowest = numpy.full(ratios.count, -numpy.inf), numpy.full(ratios.count, numpy.inf)
    numpy.maximum.at(highest, ratios.samples, logs)
    numpy.minimum.at(lowest, ratios.samples, logs)
    return bool(numpy.median(highest - lowest) <= abs(math.log(estimate.value)))


def relative_score(method: Measured, baseline: Measured) -> Estimate:
    """The ratio of two mean scores over the same records, with Fieller's interval; none below ten samples.

    The variance counts one sample more that the method lost and one that it gained, as Bonett and Price (2012) do for
    differences of paired shares: answers that were all alike, or all wrong, don't prove that others will be. The bound
    is infinite where the baseline's own score may be zero. Of the baseline itself, the same object, it is 1 and sure.
    """
    above, below = mean(method), mean(baseline)
    if method is baseline and below:
        return Estimate(1.0)
    if not below:
        return Estimate(math.inf if above else math.nan)
    if method.kind == RANGE:
        return Estimate(above / below)
    scores, plain = method.by_task(), baseline.by_task()
    squared = _quantile(scores) ** 2
    count = method.count
    one_more = (max(_highest(scores), _highest(plain)) / count) ** 2
    aa, bb = (squared * (_variance_of_mean(tasks) + one_more) for tasks in (scores, plain))
    both = [score + other for score, other in zip(scores, plain, strict=True)]
    ab = squared * (_variance_of_mean(both) - _variance_of_mean(scores) - _variance_of_mean(plain)) / 2
    if below**2 <= bb:
        return Estimate(above / below, 0.0, math.inf, INTERVAL)
    centre, square = (above * below - ab) / (below**2 - bb), (above**2 - aa) / (below**2 - bb)
    half = math.sqrt(max(centre**2 - square, 0.0))
    return Estimate(above / below, max(0.0, centre - half), centre + half, INTERVAL)


def p_not_worse(method: Measured, baseline: Measured) -> float:
    """One-sided p-value of "the method loses 1% of the baseline's score or more": small where it loses less.

    One sample more is counted that the method lost whole: a loss too rare to be seen is not excluded by not being
    seen, and three hundred samples without any are needed to exclude 1%.
    """
    return _p_of_excess(method, baseline, -1.0)


def p_worse(method: Measured, baseline: Measured) -> float:
    """One-sided p-value of "the method loses 1% of the baseline's score or less"; one sample more counts as gained."""
    return 1 - _p_of_excess(method, baseline, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same samples. Ratios and differences are of the first method to the second."""

    estimate: Estimate
    samples: int
    p_sign: float  # two-sided sign test; ties left out
    samples_to_decide: int | None  # about, at 95% with a power of 80%; None where nothing differs


def compare_divergences(first: ArrayLike, second: ArrayLike) -> Comparison:
    """The geometric mean of the ratio of two methods' KL divergences: below 1 the first follows the plain model closer.

    Args:
        first, second: nats, one for each sample, in the same order.  # (samples,)
    """
    logs = [numpy.log(numpy.maximum(numpy.asarray(values, dtype=float), KL_FLOOR)) for values in (first, second)]
    found = _compare(logs[0] - logs[1])
    return replace(found, estimate=_exponential(found.estimate))


def compare_scores(first: ArrayLike, second: ArrayLike) -> Comparison:
    """The mean of the first method's score less the second's, 0..1: above 0 the first scores higher.

    Args:
        first, second: one for each sample, in the same order.  # (samples,)
    """
    return _compare(numpy.asarray(first, dtype=float) - numpy.asarray(second, dtype=float))


def _compare(differences: Array) -> Comparison:
    differences = differences[~numpy.isnan(differences)]
    count = len(differences)
    if not count:
        return Comparison(Estimate(math.nan), 0, math.nan, None)
    value = float(differences.mean())
    spread = float(differences.std(ddof=1)) if count > 1 else math.nan
    estimate = _range(value, differences)
    if count >= LEAST_SAMPLES:
        error = spread / math.sqrt(count)
        if error:  # differences that were all alike don't prove that others will be
            low, high = stats.t.interval(CONFIDENCE, count - 1, value, error)
            estimate = Estimate(value, float(low), float(high), INTERVAL)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    p_sign = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    needed = None
    if value and spread > 0:
        quantiles = stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER)
        needed = math.ceil((quantiles * spread / value) ** 2)
    return Comparison(estimate, count, p_sign, needed)


def _p_of_excess(method: Measured, baseline: Measured, sign: float) -> float:
    """P-value that the method's score is above 99% of the baseline's, one more sample lost (-1) or gained (+1)."""
    scores, plain = method.by_task(), baseline.by_task()
    count, most = method.count, max(_highest(scores), _highest(plain))
    if count < LEAST_SAMPLES_OF_CLAIM or any(len(task) < 2 for task in scores) or not mean(baseline):
        return 1.0 if sign < 0 else 0.0
    kept = [score - (1 - ALLOWED_LOSS) * other for score, other in zip(scores, plain, strict=True)]
    excess = float(numpy.mean([task.mean() for task in kept])) + sign * most / count
    error = math.sqrt(_variance_of_mean(kept) + (most / count) ** 2)
    return float(stats.t.sf(excess / error, _freedom(kept)))


def _range(value: float, values: Array) -> Estimate:
    return Estimate(value, float(values.min()), float(values.max()), RANGE) if len(values) else Estimate(value)


def _exponential(logs: Estimate) -> Estimate:
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.kind)


def _at_share(rising: Array, weights: Array, share: float) -> float:
    """The first of the rising values at which so much of the weight is reached."""
    reached = numpy.searchsorted(numpy.cumsum(weights), share - 1e-9)
    return float(rising[min(int(reached), len(rising) - 1)])


def _variance_of_mean(tasks: Sequence[Array]) -> float:
    return float(sum(task.var(ddof=1) / len(task) for task in tasks)) / len(tasks) ** 2


def _freedom(tasks: Sequence[Array]) -> float:
    """Degrees of freedom of the variance of the mean over tasks (Satterthwaite, 1946)."""
    parts = [float(task.var(ddof=1)) / len(task) for task in tasks]
    squares = sum(part**2 / (len(task) - 1) for part, task in zip(parts, tasks, strict=True))
    return sum(parts) ** 2 / squares if squares else sum(len(task) - 1 for task in tasks)


def _quantile(tasks: Sequence[Array]) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, _freedom(tasks)))


def _highest(tasks: Sequence[Array]) -> float:
    return float(max((task.max(initial=0.0) for task in tasks), default=0.0))
