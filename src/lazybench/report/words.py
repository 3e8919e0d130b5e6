"""A run in plain words, for who reads no table: a line for each method."""

from __future__ import annotations

import pandas

from lazybench.report.names import category_rows, short_names

MOST_LINES = 6  # more say less than their table


def plain_words(summary: pandas.DataFrame) -> list[str]:
    """``LazyLLM: first token 1.5x sooner, 96% of the plain model's tokens``, the fastest first.

    Of one model on one category or task alone; where there are several, and without a clock, nothing.

    Args:
        summary: from ``summarise``.
    """
    rows = category_rows(summary) if len(summary) else summary
    if not len(rows) or "ttft_speedup" not in rows or len(rows.groupby(["model", "category", "task", "setting"])) > 1:
        return []
    names = short_names(rows)
    rows = rows[(rows["method"] != "baseline") & rows["ttft_speedup"].notna()]
    if len(rows) > MOST_LINES:
        return []
    lines = []
    for _, row in rows.sort_values("ttft_speedup", ascending=False).iterrows():
        told = [_sooner(row["ttft_speedup"], row["clock"] == "undecided")]
        if pandas.notna(row.get("fidelity_top1")):
            told.append(f"{100 * row['fidelity_top1']:.0f}% of the plain model's tokens")
        lines.append(f"{names[row['method'], row['params']]}: {', '.join(told)}")
    return lines


def _sooner(speedup: float, undecided: bool) -> str:
    if undecided:
        return "first token neither sooner nor later for certain"
    ratio = max(speedup, 1 / speedup)
    return f"first token {ratio:.{1 if ratio >= 1.1 else 2}f}x {'sooner' if speedup >= 1 else 'later'}"
