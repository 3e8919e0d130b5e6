"""A summary as tables: one run's for people, and the paper's tables 1 and 2 with our numbers beside theirs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas

from lazybench.report import paper
from lazybench.report.notes import summary_notes
from lazybench.report.summary import category_rows, timed, with_setting
from lazybench.report.text import (
    Names,
    category_title,
    formatted,
    label_lines,
    markdown,
    method_title,
    number,
    short_names,
    task_title,
)

WIDTH = 120  # of a terminal


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
    parts = [f"**{title}**\n\n{markdown(table)}" for title, table in sections(summary, names)]
    words = [*label_lines(names), "", *summary_notes(summary), *notes]
    words.append("Everything else (every task, memory, KL divergence): summary.csv.")
    return "\n".join(parts) + "\n" + "  \n".join(textwrap.fill(line, WIDTH - 2) for line in words) + "\n"


def sections(summary: pandas.DataFrame, names: Names) -> list[tuple[str, pandas.DataFrame]]:
    """For each model and category or task its title and what decides."""
    keys = ["model", "category", "task", "setting"]
    return [
        (f"{model}, {task_title(str(task), str(category), str(setting))}", brief(rows, names))
        for (model, category, task, setting), rows in category_rows(summary).groupby(keys, sort=False)
    ]


def brief(rows: pandas.DataFrame, names: Names) -> pandas.DataFrame:
    """The columns that decide, as rounded text; bounds of shares are whole percents."""
    columns = {"method": [names[key] for key in zip(rows["method"], rows["params"], strict=True)], "n": list(rows["n"])}
    if "score" in rows:
        columns["score"] = formatted(rows, "score", 1, 100, of_bounds=0)
    if rows["fidelity_top1"].notna().any():
        columns["same token %"] = formatted(rows, "fidelity_top1", 1, 100, of_bounds=0)
    if timed(rows):
        columns["TTFT s"] = formatted(rows, "ttft_median_s", 2)
        bounds = zip(rows["ttft_speedup_low"], rows["ttft_speedup_high"], rows["method"] == "baseline", strict=True)
        marks = ["" if plain or not low <= 1 <= high else " ?" for low, high, plain in bounds]
        cells = formatted(rows, "ttft_speedup", 2)
        columns["TTFT speedup"] = [cell + mark for cell, mark in zip(cells, marks, strict=True)]
    if not timed(rows) or "score" not in rows:  # seven columns are enough
        columns["FLOPs ratio"] = formatted(rows, "flops_ratio", 2)
    if timed(rows):
        columns["decoding step x"] = [number(value, 2) for value in rows["decode_step_ratio"]]
    elif rows["fidelity_kl_median"].notna().any():
        columns["KL nats (median)"] = formatted(rows, "fidelity_kl_median", 3)
    return pandas.DataFrame(columns)


def table1(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 1, category by method: score (0..100) and TTFT speedup, ours beside the paper's two models."""
    columns = {"score": ("score", 100.0), "TTFT speedup": ("ttft_speedup", 1.0)}
    return _beside_the_papers(summary, paper.read("table1"), columns)


def table2(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 2, by category: LazyLLM's prompt tokens computed (%) and overall generation speedup, ours and the paper's.

    The paper does not say which layers count; ours is the mean over layers.
    """
    computed, overall = ("prompt_tokens_computed", 100.0), ("generation_speedup", 1.0)
    columns = {"prompt computed %": computed, "generation speedup": overall}
    ours = summary[summary["method"] == "lazyllm"]
    return _beside_the_papers(ours, paper.read("table2").assign(method="lazyllm"), columns)


def _beside_the_papers(
    summary: pandas.DataFrame, papers: pandas.DataFrame, columns: dict[str, tuple[str, float]]
) -> pandas.DataFrame:
    """A row for each model, category, method and its settings, and for each of the paper's that has none.

    Args:
        columns: the title of each, its name in a summary and the factor to show.
    """
    ours = with_setting(category_rows(summary))
    if not set(ours["category"]) & set(papers["category"]):
        papers = papers[:0]
    rows = papers[["category", "method"]].merge(ours, on=["category", "method"], how="outer", sort=False)
    # the paper's order, then any other
    orders = {name: list(dict.fromkeys([*papers[name], *ours[name]])) for name in ("category", "method")}
    rows = rows.sort_values(
        ["category", "method"], key=lambda column: column.map(orders[str(column.name)].index), kind="stable"
    ).reset_index(drop=True)
    keys = zip(rows["method"], rows["params"].fillna(""), strict=True)
    table = pandas.DataFrame(
        {
            "category": [category_title(name) for name in rows["category"]],
            "model": rows["model"].fillna(""),
            "method": [method_title(*key) for key in keys],
            "n": [number(count, 0) for count in rows["n"]],
        }
    )
    for heading, (name, factor) in columns.items():
        table[heading] = formatted(rows, name, 2, factor) if name in rows else ""
    theirs = rows[["category", "method"]].merge(papers, on=["category", "method"], how="left")
    for prefix, model in (("llama2", "Llama 2"), ("xgen", "XGen")) if len(papers) else ():
        for heading, (name, _) in columns.items():
            table[f"paper {model} {heading}"] = [number(value, 2) for value in theirs[f"{prefix}_{name}"]]
    return table
