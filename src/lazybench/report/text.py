"""Names and numbers as people read them: every estimate is written here."""

from __future__ import annotations

import json
import math

import pandas
import tabulate

from lazybench.methods import label, title
from lazybench.report.paper import CATEGORY_TITLES
from lazybench.report.statistics import Estimate

tabulate.MIN_PADDING = 0  # two spaces before every heading else
WORDS = ("model", "task", "category", "method", "settings", "fixed")  # columns of text, not of numbers
SHORT = 22  # characters of a name in a table
Names = dict[tuple[str, str], str]  # a method and its params to a name


def settings_label(method: str, params: str) -> str:
    """A method's parameters, JSON as a record's ``setting`` has them, in a few words for people."""
    return label(method, json.loads(params)) if params else ""


def method_title(method: str, params: str = "") -> str:
    """``LazyLLM, depths=0.3,0.6,0.9 keep=0.7,0.7,0.7``"""
    text = settings_label(method, params)
    return f"{title(method)}, {text}" if text else title(method)


def short_names(rows: pandas.DataFrame) -> Names:
    """A name that is short and of its own: ``LazyLLM``; of several settings ``Taper, preset=fast``, where that is too
    long ``LazyLLM 1`` and ``LazyLLM 2``, in the rows' order.
    """
    keys = list(dict.fromkeys(zip(rows["method"], rows["params"], strict=True)))
    methods = [method for method, _ in keys]
    names: Names = {}
    for place, key in enumerate(keys):
        number, whole = methods[: place + 1].count(key[0]), method_title(*key)
        of_several = whole if len(whole) <= SHORT else f"{title(key[0])} {number}"
        names[key] = of_several if methods.count(key[0]) > 1 else title(key[0])
    return names


def label_lines(names: Names) -> list[str]:
    """``LazyLLM 1: depths=0.3 keep=0.5`` for each of ``short_names`` that has settings and does not say them."""
    return [f"{name}: {text}" for key, name in names.items() if (text := settings_label(*key)) and text not in name]


def task_title(task: str, category: str, setting: str) -> str:
    """``needle length=900``; a category's row has no task."""
    return f"{task or category_title(category)} {setting}".strip()


def category_title(category: str) -> str:
    """The paper's title, or the name in words."""
    return CATEGORY_TITLES.get(category, category.replace("_", " "))


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
