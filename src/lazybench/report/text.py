"""Names, numbers and pages as people read them: every estimate is written here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
import tabulate
from jinja2 import Environment, PackageLoader

from lazybench.methods import label, title
from lazybench.report.paper import CATEGORY_TITLES
from lazybench.report.statistics import Estimate
from lazybench.run.files import write_atomically

tabulate.MIN_PADDING = 0  # two spaces before every heading else
WORDS = ("model", "task", "category", "method", "settings", "fixed")  # columns of text, not of numbers
ENVIRONMENT = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)
Columns = Mapping[str, tuple[str, int, float, int | None]]  # heading to a column and how it is ``formatted``
Names = dict[tuple[str, str], str]  # a method and its params to a name


def settings_label(method: str, params: str) -> str:
    """A method's parameters, JSON as a record's ``setting`` has them, in a few words for people."""
    return label(method, json.loads(params)) if params else ""


def method_title(method: str, params: str = "") -> str:
    """``LazyLLM, depths=0.3,0.6,0.9 keep=0.7,0.7,0.7``"""
    text = settings_label(method, params)
    return f"{title(method)}, {text}" if text else title(method)


def short_names(rows: pandas.DataFrame) -> Names:
    """A name that is short and of its own: ``LazyLLM``; of several settings ``LazyLLM 1``, ``LazyLLM 2``, in the rows'
    order.
    """
    keys = list(dict.fromkeys(zip(rows["method"], rows["params"], strict=True)))
    names, methods = {}, [method for method, _ in keys]
    for place, (method, params) in enumerate(keys, 1):
        number = f" {methods[:place].count(method)}" if methods.count(method) > 1 else ""
        names[method, params] = f"{title(method)}{number}"
    return names


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
        of_bounds: digits of the bounds; None: as many.
    """
    value = number(factor * one.value, digits)
    if not value or math.isnan(one.low):
        return value
    low, high = (number(factor * bound, digits if of_bounds is None else of_bounds) for bound in (one.low, one.high))
    return f"{value} [{low}, {high or '∞'}]"  # nothing bounds it: see ``relative_score``


def formatted(rows: pandas.DataFrame, name: str, digits: int, factor: float, of_bounds: int | None) -> list[str]:
    """A column with its intervals as text; none where it is 1 by definition, the baseline's against itself.

    Args:
        of_bounds: digits of the bounds; None: they are not shown.
    """
    table = pandas.DataFrame({"value": rows[name], "low": rows.get(f"{name}_low"), "high": rows.get(f"{name}_high")})
    table.loc[(rows["method"] == "baseline") & (name != "score") | (of_bounds is None), "low"] = math.nan
    return [format_estimate(Estimate(*map(float, one)), digits, factor, of_bounds) for one in table.to_numpy(float)]


def rounded(rows: pandas.DataFrame, columns: Columns) -> dict[str, list[str]]:
    """Each column as text; those that nothing fills are left out."""
    found = {heading: formatted(rows, *how) for heading, how in columns.items() if how[0] in rows}
    return {heading: cells for heading, cells in found.items() if any(cells)}


def number(value: float, digits: int) -> str:
    """Rounded; nothing where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else ""


def write_html(path: Path, **values: Any) -> None:
    """Write a page that needs no network and runs nothing: every text is escaped, a part without a value left out."""
    page = ENVIRONMENT.get_template("page.html").render(words=(*WORDS, "prediction"), **values)
    write_atomically(path, page.encode())
