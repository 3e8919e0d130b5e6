"""A summary as tables: one run's for people, and the paper's tables 1 and 2 with our numbers beside theirs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas
import tabulate

from lazybench.report import paper
from lazybench.report.names import (
    category_rows,
    category_titles,
    method_title,
    settings_lines,
    short_names,
    task_title,
    with_settings_in_model,
)
from lazybench.report.notes import reading_notes, row_notes
from lazybench.report.statistics import INTERVAL, RANGE, Estimate

WIDTH = 120  # of a terminal
tabulate.MIN_PADDING = 0  # two spaces before every heading else
WORDS = ("model", "task", "category", "method", "settings", "fixed", "1% claim")  # columns of text, not of numbers
# the baseline's are one by definition: bounds there would say nothing
AGAINST_BASELINE = (
    *("relative_score", "fidelity_top1", "fidelity_kl_median"),
    *("ttft_speedup", "generation_speedup", "decode_step_ratio"),
)


def run_table(summary: pandas.DataFrame, notes: Sequence[str] = ()) -> str:
    """Markdown for people, no wider than a terminal: what decides, task by task, and what must be said in words.

    Of a category with several tasks its macro-average stands; every number is in summary.csv.

    Args:
        summary: from ``summarise_runs``.
        notes: on whole runs, from ``run_notes``.
    """
    if summary.empty:
        return "no samples measured yet\n"
    rows = category_rows(summary)
    names = short_names(rows)
    parts = []
    for (model, category, task, setting), section in rows.groupby(["model", "category", "task", "setting"], sort=False):
        title = task_title(str(task), str(category), str(setting))
        parts.append(f"**{model}, {title}**\n\n{markdown(_fitted(brief(section, names)))}")
    words = [*settings_lines(names), "", *reading_notes(rows, _shows_flops(rows)), *row_notes(summary, names), *notes]
    words.append("Everything else (every task, FLOPs, quartiles, memory, KL divergence, raw ratios): summary.csv.")
    return "\n".join(parts) + "\n" + "  \n".join(textwrap.fill(line, WIDTH - 2) for line in words) + "\n"


def brief(rows: pandas.DataFrame, names: dict[tuple[str, str], str]) -> pandas.DataFrame:
    """The columns that decide, as rounded text; bounds of shares are whole percents."""
    columns = {
        "method": [names[key] for key in zip(rows["method"], rows["params"], strict=True)],
        "n": [str(count) for count in rows["n"]],
    }
    if "score" in rows:
        columns["score"] = _bounded(rows, "score", 100, 1, 0)
    if rows.get("fidelity_top1", pandas.Series(dtype=float)).notna().any():
        columns["same token %"] = _bounded(rows, "fidelity_top1", 100, 1, 0)
    flops = {"FLOPs ratio": [number(value, 2) for value in rows["flops_ratio"]]} if _shows_flops(rows) else {}
    if not timed(rows):
        columns |= flops
        if "fidelity_kl_median" in rows:
            columns["KL nats (median)"] = _bounded(rows, "fidelity_kl_median", 1, 3)
    else:
        columns["TTFT s"] = [number(value, 2) for value in rows["ttft_median_s"]]
        marks = [" ?" if said == "undecided" else "" for said in rows["clock"]]
        columns["TTFT speedup"] = [
            cell + mark for cell, mark in zip(_bounded(rows, "ttft_speedup", 1, 2), marks, strict=True)
        ]
        columns |= flops
        columns["decoding step x"] = [number(value, 2) for value in rows["decode_step_ratio"]]
    return pandas.DataFrame(columns)


def readable(rows: pandas.DataFrame) -> pandas.DataFrame:
    """A summary's rows as rounded text, with units in the column names: all that people read."""
    table = pandas.DataFrame(
        {
            "task": [
                title if task else f"**{title}**"
                for task, title in zip(
                    rows["task"], map(task_title, rows["task"], rows["category"], rows["setting"]), strict=True
                )
            ],
            "method": [method_title(*key) for key in zip(rows["method"], rows["params"], strict=True)],
            "n": [str(n) for n in rows["n"]],
        }
    )
    if "score" in rows:
        table["score"] = _bounded(rows, "score", 100, 1)
        table["relative score %"] = _bounded(rows, "relative_score", 100, 1)
        table["1% claim"] = [value if isinstance(value, str) else "" for value in rows["verdict"]]
    if rows.get("fidelity_top1", pandas.Series(dtype=float)).notna().any():
        table["same token as baseline %"] = _bounded(rows, "fidelity_top1", 100, 1)
        table["KL nats (mean)"] = [number(value, 3) for value in rows["fidelity_kl"]]
        table["KL nats (median)"] = _bounded(rows, "fidelity_kl_median", 1, 3)
    table["FLOPs ratio"] = [number(value, 2) for value in rows["flops_ratio"]]
    table["prompt computed %"] = [number(100 * value, 1) for value in rows["prompt_tokens_computed"]]
    if timed(rows):
        table["TTFT s (quartiles)"] = [
            f"{number(median, 3)} ({number(low, 3)} to {number(high, 3)})"
            for median, low, high in zip(
                rows["ttft_median_s"], rows["ttft_quartile1_s"], rows["ttft_quartile3_s"], strict=True
            )
        ]
        table["TTFT speedup"] = _bounded(rows, "ttft_speedup", 1, 2)
        table["of sums"] = [number(value, 2) for value in rows["ttft_speedup_of_sums"]]
        table["clock"] = rows["clock"].fillna("").tolist()
        table["efficiency"] = [number(value, 2) for value in rows["efficiency"]]
        table["generation speedup"] = _bounded(rows, "generation_speedup", 1, 2)
        table["decoding step x"] = _bounded(rows, "decode_step_ratio", 1, 2)
        memory = "added_memory_ratio" if rows["added_memory_ratio"].notna().any() else "memory_ratio"
        table["added memory x" if memory.startswith("added") else "peak memory x"] = [
            number(value, 2) for value in rows[memory]
        ]
        if rows["overhead_s"].gt(0).any():
            table["own time s"] = [number(value, 3) for value in rows["overhead_s"]]
    for name in ("truncated", "failed"):
        if rows[name].any():
            table[name] = [number(value, 0) for value in rows[name]]
    return table


def table1(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 1, category by method: score (0..100) and TTFT speedup, each model of ours, then the paper's two."""
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
    return _beside_the_papers(summary, paper.table2().assign(method="lazyllm"), columns, only="lazyllm")


def _beside_the_papers(
    summary: pandas.DataFrame,
    papers: pandas.DataFrame,
    columns: dict[str, tuple[str, float]],
    only: str | None = None,
) -> pandas.DataFrame:
    """Category by method and setting, the paper's methods first.

    Args:
        columns: the title of each, its name in a summary and the factor to show.
        only: the one method to show; None: all.
    """
    summary = with_settings_in_model(summary)
    models, with_times = list(dict.fromkeys(summary["model"])), timed(summary)
    ours = category_rows(summary)
    if only:
        ours = ours[ours["method"] == only]
    methods = [only] if only else list(dict.fromkeys([*paper.METHOD_TITLES, *ours["method"]]))
    theirs = papers.set_index(["category", "method"])
    settings: dict[Any, list[str]] = {key: [""] for key in theirs.index}
    settings |= {key: list(dict.fromkeys(rows["params"])) for key, rows in ours.groupby(["category", "method"])}
    titles = category_titles(ours)
    shown = [(one, method, name) for one in titles for method in methods for name in settings.get((one, method), [])]
    table = pandas.DataFrame(
        [(titles[one], method_title(method, name)) for one, method, name in shown], columns=["category", "method"]
    )
    for model in models:
        rows = ours[ours["model"] == model].set_index(["category", "method", "params"]).reindex(shown).reset_index()
        table[f"{model} n"] = [number(samples, 0) for samples in rows["n"]]
        for title, (name, factor) in columns.items():
            if with_times or not name.endswith("speedup"):
                table[f"{model} {title}"] = _bounded(rows, name, factor, 2) if name in rows else ""
    theirs = theirs.reindex([key[:2] for key in shown])
    for prefix, model in (("llama2", "Llama 2"), ("xgen", "XGen")) if theirs.notna().any(axis=None) else ():
        for title, (name, _) in columns.items():
            table[f"paper {model} {title}"] = [number(value, 2) for value in theirs[f"{prefix}_{name}"]]
    return table


def markdown(table: pandas.DataFrame) -> str:
    """A Markdown table, padded so that it reads well as plain text; numbers to the right."""
    align = ["left" if name in WORDS else "right" for name in table]
    escaped = table.map(lambda cell: str(cell).replace("|", "\\|"))
    return f"{escaped.to_markdown(index=False, colalign=align, disable_numparse=True)}\n"


def latex(table: pandas.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table for the ``booktabs`` package; a category is named in its first row."""
    named = table
    if "category" in table:  # named once, in its first row
        named = table.assign(category=table["category"].where(table["category"] != table["category"].shift(), ""))
    columns = "".join("l" if name in WORDS else "r" for name in table)
    styler = named.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    caption = caption.replace("%", r"\%")
    return str(
        styler.to_latex(hrules=True, column_format=columns, caption=caption, label=label, position_float="centering")
    )


def timed(rows: pandas.DataFrame) -> bool:
    """Whether any of a summary's rows has a time, relative to the baseline's."""
    return "ttft_speedup" in rows and bool(rows["ttft_speedup"].notna().any())


def _shows_flops(rows: pandas.DataFrame) -> bool:
    """Seven columns are enough: where both score and times stand, they decide."""
    return not (timed(rows) and "score" in rows)


def with_bounds(one: Estimate, digits: int, factor: float = 1.0) -> str:
    """``0.68 [0.57, 0.79]``: brackets around an interval, parentheses around a range, nothing without bounds."""
    if math.isnan(one.low):
        return number(factor * one.value, digits)
    left, right = "[]" if one.kind == INTERVAL else "()"
    value, low, high = (number(factor * bound, digits) for bound in (one.value, one.low, one.high))
    high = high or "∞"  # nothing bounds it: see ``relative_score``
    return f"{value} {left}{low}, {high}{right}"


def number(value: float, digits: int) -> str:
    """Rounded; nothing where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else ""


def _fitted(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table, its methods' names cut from the front where it would be wider than a terminal."""
    width = len(markdown(table).split("\n", 1)[0])
    longest = table["method"].str.len().max() - max(0, width - WIDTH)
    cut = [name if len(name) <= longest else f"…{name[1 - longest :]}" for name in table["method"]]
    return table.assign(method=cut)


def _bounded(rows: pandas.DataFrame, name: str, factor: float, digits: int, of_bounds: int | None = None) -> list[str]:
    """Numbers with their bounds: an interval in brackets, lowest to highest in parentheses."""
    cells = []
    for _, row in rows.iterrows():
        point = number(factor * row[name], digits)
        low, high = (
            number(factor * row.get(f"{name}_{side}", math.nan), digits if of_bounds is None else of_bounds)
            for side in ("low", "high")
        )
        shown = point and low and high and not (row["method"] == "baseline" and name in AGAINST_BASELINE)
        own = row.get(f"{name}_bounds")
        few = (own if isinstance(own, str) else row["bounds"]) == RANGE
        if shown and not (few and row["n"] == 1):
            point += f" ({low}–{high})" if few else f" [{low}, {high}]"
        cells.append(point)
    return cells
