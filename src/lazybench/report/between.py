"""Two methods by name: one line for each speed or memory ratio, and what would decide it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas

from lazybench.errors import UserError, unknown_name
from lazybench.report.curves import Curve
from lazybench.report.leaderboard import NOT_JUDGED, Section
from lazybench.report.statistics import LEAST_SAMPLES, Comparison, Estimate
from lazybench.report.tables import number, with_bounds

WORDS = {"closer": "closer to the plain model", "further": "further from the plain model", "undecided": "undecided"}


def lines(found: Sequence[Section], first: str, second: str, own_speeds: bool = True) -> list[str]:
    """What the paired test says of ``first`` against ``second``, at everything that both were measured at.

    Args:
        first, second: a method, or with words of its settings, ``lazyllm:never revived``, to tell its curves apart.
        own_speeds: where they meet at none of the sections' speeds, take those of their own settings.

    Raises:
        UserError: a method that no record is of, the same one twice, or two without a common speed.
    """
    if not found:
        raise UserError(NOT_JUDGED)
    known = sorted({curve.method for section in found for curve in section.curves})
    for name in (first, second):
        if (method := name.partition(":")[0]) not in known:
            raise unknown_name("method of --between", method, known)
    if first == second:
        raise UserError(
            f"--between {first} {second} names one thing twice; two curves of a method are told apart by words of "
            "their settings, as in lazyllm 'lazyllm:never revived'"
        )
    told = [line for section in found for line in _told(section, first, second)]
    if not told and own_speeds:
        told = [line for section in _at_own_speeds(found, first, second) for line in _told(section, first, second)]
    if not told:
        raise UserError(
            f"{first} and {second} were measured at no common speed ({_ranges(found[0], first, second)}); "
            "choose one with --speeds, or measure more settings"
        )
    return told


def _told(section: Section, first: str, second: str) -> list[str]:
    one, other = _chosen(section.curves, first), _chosen(section.curves, second)
    if ":" in first:  # the words take theirs, a method's name alone the rest
        other = {family: curve for family, curve in other.items() if family not in one}
    else:
        one = {family: curve for family, curve in one.items() if family not in other}
    only = replace(section, curves=(*one.values(), *other.values()))
    firsts, seconds = only.names[: len(one)], only.names[len(one) :]
    closer = [
        f"{section.title}: {_said(row)}"
        for row in only.comparisons().itertuples()
        if row.method in firsts and row.against in seconds
    ]
    places = [(a, len(one) + b) for a in range(len(one)) for b in range(len(other))]
    compared = [(only.names[a], only.names[b], only.compare_scores(a, b)) for a, b in places]
    return closer + [f"{section.title}: {_said_of_scores(*found)}" for found in compared if found[2].samples]


def _at_own_speeds(found: Sequence[Section], *names: str) -> Iterator[Section]:
    for section in {(section.model, section.matched, section.timed): section for section in found}.values():
        speeds = {
            f"{speed:.6g}": speed
            for name in names
            for c in _chosen(section.curves, name).values()
            for speed in c.speeds
        }
        yield from (replace(section, speed=speed) for speed in sorted(speeds.values()))


def _chosen(curves: Sequence[Curve], name: str) -> dict[tuple[str, str], Curve]:
    method, _, words = name.partition(":")
    return {(curve.method, curve.family): curve for curve in curves if curve.method == method and words in curve.family}


def _said(row: Any) -> str:
    ratio = with_bounds(Estimate(row.kl_ratio, row.kl_ratio_low, row.kl_ratio_high, row.bounds), 2)
    test = f"sign test p={row.p_sign:.2g}"
    if row.result == "undecided" and pandas.notna(row.samples_to_decide):
        test += f"; about {max(row.samples_to_decide, LEAST_SAMPLES):.0f} samples would decide it"
    return f"KL of {row.method} is {ratio} times that of {row.against}, n={row.n}: {WORDS[str(row.result)]} ({test})"


def _said_of_scores(first: str, second: str, found: Comparison) -> str:
    test = f"sign test p={found.p_sign:.2g}"
    if found.estimate.low <= 0 <= found.estimate.high and found.samples_to_decide:
        test += f"; about {max(found.samples_to_decide, LEAST_SAMPLES)} samples would decide it"
    points = with_bounds(found.estimate, 1, 100)
    return f"the score of {first} less that of {second} is {points} points of 100, n={found.samples} ({test})"


def _ranges(section: Section, *names: str) -> str:
    return "; ".join(
        f"{curve.method} {number(curve.speeds[0], 2)}x to {number(curve.speeds[-1], 2)}x"
        for name in names
        for curve in _chosen(section.curves, name).values()
    )
