"""A summary as tables: one run's for people, and the paper's tables 1 and 2 with our numbers beside theirs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import pandas
import tabulate

from lazybench.report import paper
from lazybench.report.names import (
    Names,
    category_rows,
    category_titles,
    method_title,
    settings_lines,
    short_names,
    task_title,
    timed,
    with_setting,
)
from lazybench.report.notes import reading_notes, row_notes
from lazybench.report.statistics import INTERVAL, Estimate, significant

WIDTH = 120  # of a terminal
tabulate.MIN_PADDING = 0  # two spaces before every heading else
WORDS = ("model", "task", "category", "method", "settings", "fixed")  # columns of text, not of numbers
# the baseline's are one by definition: bounds there would say nothing
AGAINST_BASELINE = (
    *("relative_score", "fidelity_top1", "fidelity_kl_median"),
    *("ttft_speedup", "generation_speedup", "decode_step_ratio"),
)
Sections = list[tuple[str, pandas.DataFrame]]


def run_table(summary: pandas.DataFrame, notes: Sequence[str] = ()) -> str:
    """Markdown for people, no wider than a terminal: what decides, task by task, and what must be said in words.

    Of a category with several tasks its macro-average stands; every number is in summary.csv.

    Args:
        summary: from ``summarise``.
        notes: on whole runs, from ``run_notes``.
    """
    if summary.empty:
        return "no samples measured yet\n"
    names = short_names(category_rows(summary))
    parts = [f"**{title}**\n\n{markdown(_fitted(table))}" for title, table in sections(summary, names)]
    words = [*settings_lines(names), "", *reading_notes(summary), *row_notes(summary), *notes]
    words.append("Everything else (every task, quartiles, memory, KL divergence): summary.csv.")
    return "\n".join(parts) + "\n" + "  \n".join(textwrap.fill(line, WIDTH - 2) for line in words) + "\n"


def sections(summary: pandas.DataFrame, names: Names) -> Sections:
    """For each model and category or task its title and what decides."""
    keys = ["model", "category", "task", "setting"]
    return [
        (f"{model}, {task_title(str(task), str(category), str(setting))}", brief(rows, names))
        for (model, category, task, setting), rows in category_rows(summary).groupby(keys, sort=False)
    ]


def brief(rows: pandas.DataFrame, names: Names) -> pandas.DataFrame:
    """The columns that decide, as rounded text; bounds of shares are whole percents."""
    columns = {
        "method": [names[key] for key in zip(rows["method"], rows["params"], strict=True)],
        "n": [str(count) for count in rows["n"]],
    }
    if "score" in rows:
        columns["score"] = formatted(rows, "score", 1, 100, of_bounds=0)
    if rows["fidelity_top1"].notna().any():
        columns["same token %"] = formatted(rows, "fidelity_top1", 1, 100, of_bounds=0)
    if timed(rows):
        columns["TTFT s"] = [number(value, 2) for value in rows["ttft_median_s"]]
        bounds = rows[["ttft_speedup", "ttft_speedup_low", "ttft_speedup_high"]].itertuples(index=False)
        sure = [significant(Estimate(*one)) for one in bounds] | (rows["method"] == "baseline").to_numpy()
        cells = formatted(rows, "ttft_speedup", 2)
        columns["TTFT speedup"] = [cell if known else f"{cell} ?" for cell, known in zip(cells, sure, strict=True)]
    if not timed(rows) or "score" not in rows:  # seven columns are enough
        columns["FLOPs ratio"] = [number(value, 2) for value in rows["flops_ratio"]]
    if timed(rows):
        columns["decoding step x"] = [number(value, 2) for value in rows["decode_step_ratio"]]
    elif rows["fidelity_kl_median"].notna().any():
        columns["KL nats (median)"] = formatted(rows, "fidelity_kl_median", 3)
    return pandas.DataFrame(columns)


def table1(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 1, category by method: score (0..100) and TTFT speedup, ours beside the paper's two models."""
    columns = {"score": ("score", 100.0), "TTFT speedup": ("ttft_speedup", 1.0)}
    return _beside_the_papers(summary, paper.table1(), columns)


def table2(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 2, by category: LazyLLM's prompt tokens computed (%) and overall generation speedup, ours and the paper's.

    The paper does not say which layers count; ours is the mean over layers.
    """
    columns = {
        "prompt computed %": ("prompt_tokens_computed", 100.0),
        "generation speedup": ("generation_speedup", 1.0),
    }
    ours = summary[summary["method"] == "lazyllm"]
    return _beside_the_papers(ours, paper.table2().assign(method="lazyllm"), columns)


def _beside_the_papers(
    summary: pandas.DataFrame, papers: pandas.DataFrame, columns: dict[str, tuple[str, float]]
) -> pandas.DataFrame:
    """A row for each model, category, method and its settings; of the paper's categories and methods, those that it has
    and we have not measured too.

    Args:
        columns: the title of each, its name in a summary and the factor to show.
    """
    ours = with_setting(category_rows(summary))
    titles = category_titles(ours)
    theirs = papers.set_index(["category", "method"])
    methods = [*dict.fromkeys(papers["method"]), *(name for name in ours["method"] if name not in {*papers["method"]})]
    found = []
    for category, title in titles.items():
        for method in dict.fromkeys(methods):
            rows = ours[(ours["category"] == category) & (ours["method"] == method)]
            known = theirs.loc[(category, method)] if (category, method) in theirs.index else None
            if rows.empty and known is None:
                continue
            names = [method_title(method, params) for params in rows["params"]] or [method_title(method)]
            table = pandas.DataFrame({"category": title, "method": names})
            table.insert(1, "model", rows["model"].tolist() or "")
            table["n"] = [str(count) for count in rows["n"]] or ""
            for heading, (name, factor) in columns.items():
                table[heading] = (formatted(rows, name, 2, factor) if name in rows else "") or ""
            for prefix, model in (("llama2", "Llama 2"), ("xgen", "XGen")) if known is not None else ():
                for heading, (name, _) in columns.items():
                    table[f"paper {model} {heading}"] = number(known[f"{prefix}_{name}"], 2)  # type: ignore[index]
            found.append(table)
    return pandas.concat(found, ignore_index=True).fillna("")


def markdown(table: pandas.DataFrame) -> str:
    """A Markdown table, padded so that it reads well as plain text; numbers to the right."""
    align = ["left" if name in WORDS else "right" for name in table]
    escaped = table.map(lambda cell: str(cell).replace("|", "\\|"))
    return f"{escaped.to_markdown(index=False, colalign=align, disable_numparse=True)}\n"


def latex(table: pandas.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table for the ``booktabs`` package."""
    columns = "".join("l" if name in WORDS else "r" for name in table)
    styler = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    caption = caption.replace("%", r"\%")
    return str(
        styler.to_latex(hrules=True, column_format=columns, caption=caption, label=label, position_float="centering")
    )


def format_estimate(one: Estimate, digits: int, factor: float = 1.0, of_bounds: int | None = None) -> str:
    """``0.68 [0.57, 0.79]``: brackets around an interval, parentheses around a range, nothing without bounds.

    Args:
        of_bounds: digits of the bounds, where they are others.
    """
    value = number(factor * one.value, digits)
    if not value or math.isnan(one.low) or (one.low == one.high and one.kind != INTERVAL):
        return value
    left, right = "[]" if one.kind == INTERVAL else "()"
    low, high = (number(factor * bound, digits if of_bounds is None else of_bounds) for bound in (one.low, one.high))
    return f"{value} {left}{low}, {high or '∞'}{right}"  # nothing bounds it: see ``relative_score``


def formatted(
    rows: pandas.DataFrame, name: str, digits: int, factor: float = 1.0, of_bounds: int | None = None
) -> list[str]:
    """A column with its bounds as text; the baseline's own are 1 by definition and have none."""
    kinds = rows.get(f"{name}_bounds", rows["bounds"]).fillna(rows["bounds"])
    lows, highs = rows.get(f"{name}_low", math.nan), rows.get(f"{name}_high", math.nan)
    table = pandas.DataFrame({"value": rows[name], "low": lows, "high": highs, "kind": kinds})
    if name in AGAINST_BASELINE:
        table.loc[rows["method"].str.lower() == "baseline", "low"] = math.nan
    return [format_estimate(Estimate(*one), digits, factor, of_bounds) for one in table.itertuples(index=False)]


def number(value: float, digits: int) -> str:
    """Rounded; nothing where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else ""


def _fitted(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table, its methods' names cut from the front where it would be wider than a terminal."""
    width = len(markdown(table).split("\n", 1)[0])
    longest = table["method"].str.len().max() - max(0, width - WIDTH)
    cut = [name if len(name) <= longest else f"…{name[1 - longest :]}" for name in table["method"]]
    return table.assign(method=cut)
