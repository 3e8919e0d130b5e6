"""Two methods by name: one line for each speed or memory ratio, and what would decide it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas

from lazybench.errors import UserError, unknown_name
from lazybench.report.leaderboard import Section
from lazybench.report.statistics import INTERVAL, LEAST_SAMPLES
from lazybench.report.tables import number

WORDS = {"closer": "closer to the plain model", "further": "further from the plain model", "undecided": "undecided"}


def lines(found: Sequence[Section], first: str, second: str) -> list[str]:
    """What the paired test says of ``first`` against ``second``, at everything that both were measured at.

    Raises:
        UserError: a method that no record is of, the same one twice, or two without a common speed.
    """
    known = sorted({curve.method for section in found for curve in section.curves})
    for name in (first, second):
        if name not in known:
            raise unknown_name("method of --between", name, known)
    if first == second:
        raise UserError(f"--between {first} {second} names one method twice; its settings stand on one curve")
    told = []
    for section in found:
        only = replace(section, curves=tuple(c for c in section.curves if c.method in (first, second)))
        methods = dict(zip(only.names, (curve.method for curve in only.curves), strict=True))
        for row in only.comparisons().itertuples():
            if (methods[str(row.method)], methods[str(row.against)]) == (first, second):
                told.append(f"{section.title}: {_said(row)}")
    if not told:
        raise UserError(
            f"{first} and {second} were measured at no common speed ({_ranges(found, (first, second))}); "
            "choose one with --speeds, or measure more settings"
        )
    return told


def _said(row: Any) -> str:
    ratio, low, high = (number(value, 2) for value in (row.kl_ratio, row.kl_ratio_low, row.kl_ratio_high))
    test = f"sign test p={row.p_sign:.2g}"
    if row.result == "undecided" and pandas.notna(row.samples_to_decide):
        test += f"; about {max(row.samples_to_decide, LEAST_SAMPLES):.0f} samples would decide it"
    left, right = "[]" if row.bounds == INTERVAL else "()"
    return (
        f"KL of {row.method} is {ratio} {left}{low}, {high}{right} times that of {row.against}, n={row.n}: "
        f"{WORDS[str(row.result)]} ({test})"
    )


def _ranges(found: Sequence[Section], names: Sequence[str]) -> str:
    section = found[0]
    return "; ".join(
        f"{curve.method} {number(curve.speeds[0], 2)}x to {number(curve.speeds[-1], 2)}x"
        for curve in section.curves
        if curve.method in names
    )
