"""Numbers and tables as text: every estimate is written here."""

from __future__ import annotations

import math

import pandas
import tabulate

from lazybench.report.statistics import Estimate

tabulate.MIN_PADDING = 0  # two spaces before every heading else
WORDS = ("model", "task", "category", "method", "settings", "fixed")  # columns of text, not of numbers


def markdown(table: pandas.DataFrame) -> str:
    """A Markdown table, padded so that it reads well as plain text; numbers to the right."""
    align = ["left" if name in WORDS else "right" for name in table]
    escaped = table.map(lambda cell: str(cell).replace("|", "\\|"))
    return f"{escaped.to_markdown(index=False, colalign=align, disable_numparse=True)}\n"


def format_estimate(one: Estimate, digits: int, factor: float = 1.0, of_bounds: int | None = None) -> str:
    """``0.68 [0.57, 0.79]``; nothing beside a number without an interval.

    Args:
        of_bounds: digits of the bounds, where they are others.
    """
    value = number(factor * one.value, digits)
    if not value or math.isnan(one.low):
        return value
    low, high = (number(factor * bound, digits if of_bounds is None else of_bounds) for bound in (one.low, one.high))
    return f"{value} [{low}, {high or '∞'}]"  # nothing bounds it: see ``relative_score``


def formatted(
    rows: pandas.DataFrame, name: str, digits: int, factor: float = 1.0, of_bounds: int | None = None
) -> list[str]:
    """A column with its intervals as text; none where it is 1 by definition, the baseline's against itself."""
    table = pandas.DataFrame({"value": rows[name], "low": rows.get(f"{name}_low"), "high": rows.get(f"{name}_high")})
    if name != "score" and "low" in table:
        table.loc[rows["method"] == "baseline", "low"] = math.nan
    return [format_estimate(Estimate(*map(float, one)), digits, factor, of_bounds) for one in table.to_numpy(float)]


def number(value: float, digits: int) -> str:
    """Rounded; nothing where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else ""
