"""A summary as tables: one run's for people, and the paper's tables 1 and 2 with our numbers beside theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas

from lazybench.report import paper

DRIFT_WORTH_TELLING = 0.10
# the baseline's are one by definition: an interval there would say nothing
AGAINST_BASELINE = ("relative_score", "fidelity_top1", "fidelity_kl", "ttft_speedup", "generation_speedup")


def run_table(summary: pandas.DataFrame, drifts: dict[str, float | None]) -> str:
    """Markdown for people: one run's summary, rounded, with units, and the notes that its numbers need.

    Args:
        summary: from ``summarise``.
        drifts: a run's name to its ``baseline_drift``.
    """
    if summary.empty:
        return "no samples measured yet\n"
    parts = []
    for model, rows in summary.groupby("model", sort=False):
        parts.append(f"**{model}**\n\n" + markdown(readable(rows)))
    notes = [
        "Brackets: 95% bootstrap interval. TTFT speedup: baseline over method, ratio of sums over the same samples of "
        "the same run (in parentheses: median of the paired ratios). Decoding step and memory: method over baseline. "
        "Efficiency: measured over ideal speedup.",
        *drift_notes(drifts),
    ]
    if summary["failed"].sum():
        notes.append(f"{int(summary['failed'].sum())} records failed and are left out; samples.jsonl names them.")
    return "\n".join(parts) + "\n" + "\n\n".join(notes) + "\n"


def drift_notes(drifts: dict[str, float | None]) -> list[str]:
    """A line for each run whose baseline TTFT moved by more than 10% while it ran."""
    return [
        f"baseline_drift: the baseline's TTFT changed by {drift:+.0%} between the first and last quarter of {name}; "
        "its speedups are less certain than their intervals say."
        for name, drift in drifts.items()
        if drift is not None and abs(drift) > DRIFT_WORTH_TELLING
    ]


def readable(rows: pandas.DataFrame) -> pandas.DataFrame:
    """A summary's rows as rounded text, with units in the column names."""
    table = pandas.DataFrame(
        {
            "task": [task or f"**{category}**" for task, category in zip(rows["task"], rows["category"], strict=True)],
            "method": [
                method_title(method, variant) for method, variant in zip(rows["method"], rows["variant"], strict=True)
            ],
            "n": [str(n) for n in rows["n"]],
        }
    )
    if "score" in rows:
        table["score"] = _with_interval(rows, "score", 100, 1)
        table["relative score %"] = _with_interval(rows, "relative_score", 100, 1)
        table["1% claim"] = [value if isinstance(value, str) else "" for value in rows["verdict"]]
    if rows.get("fidelity_top1", pandas.Series(dtype=float)).notna().any():
        table["same token as baseline %"] = _with_interval(rows, "fidelity_top1", 100, 1)
        table["KL nats"] = _with_interval(rows, "fidelity_kl", 1, 3)
    if "ttft_speedup" in rows:
        table["TTFT s (quartiles)"] = [
            f"{number(median, 3)} ({number(low, 3)} to {number(high, 3)})"
            for median, low, high in zip(
                rows["ttft_median_s"], rows["ttft_quartile1_s"], rows["ttft_quartile3_s"], strict=True
            )
        ]
        medians = [number(value, 2) for value in rows["ttft_speedup_median"]]
        speedups = _with_interval(rows, "ttft_speedup", 1, 2)
        table["TTFT speedup"] = [
            f"{speedup} ({median})" if median and method != "baseline" else speedup
            for speedup, median, method in zip(speedups, medians, rows["method"], strict=True)
        ]
        table["ideal"] = [number(value, 2) for value in rows["ideal_ttft_speedup"]]
        table["efficiency"] = [number(value, 2) for value in rows["efficiency"]]
        table["generation speedup"] = _with_interval(rows, "generation_speedup", 1, 2)
        table["decoding step x"] = [number(value, 2) for value in rows["decode_step_ratio"]]
        table["prompt computed %"] = [number(100 * value, 1) for value in rows["prompt_tokens_computed"]]
        table["peak memory x"] = [number(value, 2) for value in rows["memory_ratio"]]
        if rows["overhead_s"].gt(0).any():
            table["own time s"] = [number(value, 3) for value in rows["overhead_s"]]
    if rows["failed"].any():
        table["failed"] = rows["failed"].astype(str).tolist()
    return table


def table1(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 1, category by method: score (0..100) and TTFT speedup, each model of ours, then the paper's two."""
    theirs = {(row["category"], row["method"]): row for row in paper.table1().to_dict("records")}
    ours = category_rows(summary)
    keys = list(dict.fromkeys([*zip(ours["category"], ours["method"], ours["variant"], strict=True)]))
    lines = []
    for category, title in category_titles(ours).items():
        for method in dict.fromkeys([*paper.METHOD_TITLES, *ours["method"]]):
            variants = [v for c, m, v in keys if (c, m) == (category, method)]
            if not variants and (category, method) not in theirs:
                continue
            for variant in variants or [""]:
                line = {
                    "category": title,
                    "method": method_title(method, variant),
                }
                for model in dict.fromkeys(summary["model"]):
                    match = ours[
                        (ours["model"] == model)
                        & (ours["category"] == category)
                        & (ours["method"] == method)
                        & (ours["variant"] == variant)
                    ]
                    line[f"{model} n"] = str(match["n"].iloc[0]) if len(match) else ""
                    line[f"{model} score"] = _cell(match, "score", 100, 2)
                    line[f"{model} TTFT speedup"] = _cell(match, "ttft_speedup", 1, 2)
                if (category, method) in theirs:
                    known = theirs[category, method]
                    line["paper Llama 2 score"] = f"{known['llama2_score']:.2f}"
                    line["paper Llama 2 TTFT speedup"] = f"{known['llama2_ttft_speedup']:.2f}"
                    line["paper XGen score"] = f"{known['xgen_score']:.2f}"
                    line["paper XGen TTFT speedup"] = f"{known['xgen_ttft_speedup']:.2f}"
                lines.append(line)
    return pandas.DataFrame(lines).fillna("")


def table2(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Table 2, by category: LazyLLM's prompt tokens computed (%) and overall generation speedup, ours and the paper's.

    The paper does not say which layers count; ours is the mean over layers.
    """
    theirs = {row["category"]: row for row in paper.table2().to_dict("records")}
    ours = category_rows(summary)
    ours = ours[ours["method"] == "lazyllm"]
    lines = []
    for category, title in category_titles(ours).items():
        of_category = ours[ours["category"] == category]
        for variant in list(dict.fromkeys(of_category["variant"])) or [""]:
            line = {"category": title, "method": method_title("lazyllm", variant)}
            for model in dict.fromkeys(summary["model"]):
                match = of_category[(of_category["model"] == model) & (of_category["variant"] == variant)]
                line[f"{model} n"] = str(match["n"].iloc[0]) if len(match) else ""
                line[f"{model} prompt computed %"] = _cell(match, "prompt_tokens_computed", 100, 2)
                line[f"{model} generation speedup"] = _cell(match, "generation_speedup", 1, 2)
            if category in theirs:
                known = theirs[category]
                line["paper Llama 2 prompt computed %"] = f"{known['llama2_prompt_tokens_computed']:.2f}"
                line["paper Llama 2 generation speedup"] = f"{known['llama2_generation_speedup']:.2f}"
                line["paper XGen prompt computed %"] = f"{known['xgen_prompt_tokens_computed']:.2f}"
                line["paper XGen generation speedup"] = f"{known['xgen_generation_speedup']:.2f}"
            lines.append(line)
    return pandas.DataFrame(lines).fillna("")


def category_titles(rows: pandas.DataFrame) -> dict[str, str]:
    """The paper's six categories, then any other that was measured (embedded tasks, lm-eval's), under its own name."""
    others = [name for name in dict.fromkeys(rows["category"]) if name not in paper.CATEGORY_TITLES]
    return {**paper.CATEGORY_TITLES, **{name: name.replace("_", " ") for name in others}}


def category_rows(summary: pandas.DataFrame) -> pandas.DataFrame:
    """One row per category, method and variant: the category's own, or its only task's."""
    whole = summary[summary["level"] == "category"]
    covered = set(zip(whole["model"], whole["category"], strict=True))
    alone = [key not in covered for key in zip(summary["model"], summary["category"], strict=True)]
    return summary[(summary["level"] == "category") | pandas.Series(alone, index=summary.index, dtype=bool)]


def method_title(method: str, variant: str) -> str:
    """``LazyLLM, depths=0.3,0.6,0.9 keep=0.7,0.7,0.7``"""
    title = paper.METHOD_TITLES.get(method, method)
    return f"{title}, {variant}" if variant else title


def markdown(table: pandas.DataFrame) -> str:
    """A Markdown table, padded so that it reads well as plain text; numbers to the right."""
    head = [str(name) for name in table.columns]
    body = [[str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)]
    widths = [max(len(line[index]) for line in [head, *body]) for index in range(len(head))]
    words = [index for index, name in enumerate(head) if name in ("task", "category", "method", "1% claim")]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i in words else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (w + 2) if i in words else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, body)]) + "\n"


def latex(table: pandas.DataFrame, caption: str, label: str) -> str:
    """A LaTeX table for the ``booktabs`` package."""
    special = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#"})

    def line(cells: Sequence[object]) -> str:
        return " & ".join(str(cell).translate(special) for cell in cells) + r" \\"

    columns = "".join("l" if name in ("category", "method") else "r" for name in table.columns)
    rows, before = [], None
    for row in table.itertuples(index=False):
        if before is not None and row[0] != before:
            rows.append(r"\midrule")
        rows.append(line([row[0] if row[0] != before else "", *row[1:]]))
        before = row[0]
    return "\n".join(
        [
            r"\begin{table}\centering\small",
            rf"\caption{{{caption.translate(special)}}}\label{{{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(list(table.columns)),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}\end{table}",
            "",
        ]
    )


def number(value: float, digits: int) -> str:
    """Rounded; nothing where there is no number."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else ""


def _cell(match: pandas.DataFrame, name: str, factor: float, digits: int) -> str:
    return _with_interval(match, name, factor, digits)[0] if len(match) and name in match else ""


def _with_interval(rows: pandas.DataFrame, name: str, factor: float, digits: int) -> list[str]:
    cells = []
    for _, row in rows.iterrows():
        point = number(factor * row[name], digits)
        low, high = (number(factor * row.get(f"{name}_{side}", math.nan), digits) for side in ("low", "high"))
        if row["method"] == "baseline" and name in AGAINST_BASELINE:
            low = high = ""
        cells.append(f"{point} [{low}, {high}]" if point and low and high else point)
    return cells
