"""A summary as tables: a run's own, the paper's 1 and 2 with our numbers beside theirs, and what they say in words."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import pandas

from lazybench.report import paper
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.summary import category_rows, superseded, timed, with_setting
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
from lazybench.run.reading import Run, missing_shards

WIDTH = 120  # of a terminal
READING = {  # by the column that it explains
    "n": f"[brackets]: 95% interval, from {LEAST_SAMPLES} samples on.",
    "score": "Score: 0 to 100.",
    "same token %": "Same token: how often the method's next token is the baseline's, along the baseline's answer.",
    "KL nats": "KL: divergence from the baseline's next-token distribution, along its answer; geometric mean.",
    "FLOPs ratio": "FLOPs ratio: FLOPs of the plain prefill over the method's.",
    "TTFT speedup": "TTFT: time to first token, the median; its speedup: baseline over method, the median of the "
    "paired ratios; ?: TTFT difference not significant.",
    "decoding step x": "Decoding step x: method over baseline, above 1 is slower.",
}
SPARED = ("TTFT s", "same token %", "decoding step x")  # the first of them where there is no room for all


class Overview(NamedTuple):
    """What a summary says to people."""

    lead: str  # a sentence
    tables: list[tuple[str, pandas.DataFrame]]  # of each model and task its title and what decides
    labels: list[str]  # what the names in the tables stand for
    notes: list[str]


def overview(summary: pandas.DataFrame, notes: Sequence[str] = (), width: int = WIDTH) -> Overview:
    """Of a category with several tasks its macro-average stands; every number is in summary.csv.

    Args:
        summary: from ``summarise``.
        notes: on whole runs, from ``run_notes``.
        width: characters that a table may be wide.
    """
    if summary.empty:
        return Overview("no samples measured yet", [], [], [*notes])
    names = short_names(category_rows(summary))
    tables = sections(summary, names, width)
    return Overview(headline(summary), tables, label_lines(names), [*summary_notes(summary, tables), *notes])


def run_table(summary: pandas.DataFrame, notes: Sequence[str] = ()) -> str:
    """An ``overview`` as Markdown, no wider than a terminal."""
    said = overview(summary, notes)
    parts = [f"**{title}**\n\n{markdown(table)}" for title, table in said.tables]
    words = [*said.labels, "", *said.notes, "Everything else (every task, seconds, memory): summary.csv.", said.lead]
    return "\n".join(parts) + "\n" + "  \n".join(textwrap.fill(line, WIDTH - 2) for line in words) + "\n"


def sections(summary: pandas.DataFrame, names: Names, width: int = WIDTH) -> list[tuple[str, pandas.DataFrame]]:
    """For each model and category or task its title and what decides, all columns that there is room for."""
    keys = ["model", "category", "task", "setting"]
    found = [
        (f"{model}, {task_title(str(task), str(category), str(setting))}", brief(rows, names))
        for (model, category, task, setting), rows in category_rows(summary).groupby(keys, sort=False)
    ]
    for name in SPARED:
        if max(markdown(table).index("\n") for _, table in found) > width:
            found = [(title, table.drop(columns=name, errors="ignore")) for title, table in found]
    return found


def brief(rows: pandas.DataFrame, names: Names) -> pandas.DataFrame:
    """The columns that decide, as rounded text; bounds of shares are whole percents."""
    columns = {"method": [names[key] for key in zip(rows["method"], rows["params"], strict=True)], "n": list(rows["n"])}
    if "score" in rows:
        columns["score"] = formatted(rows, "score", 1, 100, of_bounds=0)
    if rows["fidelity_top1"].notna().any():
        columns["same token %"] = formatted(rows, "fidelity_top1", 1, 100, of_bounds=0)
    if rows["kl"].notna().any():
        columns["KL nats"] = formatted(rows, "kl", 3)
    columns["FLOPs ratio"] = formatted(rows, "flops_ratio", 2)
    if timed(rows):
        columns["TTFT s"] = formatted(rows, "ttft_median_s", 2)
        bounds = zip(rows["ttft_speedup_low"], rows["ttft_speedup_high"], rows["method"] == "baseline", strict=True)
        marks = ["" if plain or not low <= 1 <= high else " ?" for low, high, plain in bounds]
        cells = formatted(rows, "ttft_speedup", 2)
        columns["TTFT speedup"] = [cell + mark for cell, mark in zip(cells, marks, strict=True)]
        columns["decoding step x"] = [number(value, 2) for value in rows["decode_step_ratio"]]
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
    rows = papers.merge(ours, on=["category", "method"], how="outer", sort=False)
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
    for prefix, model in (("llama2", "Llama 2"), ("xgen", "XGen")):
        for heading, (name, _) in columns.items():
            table[f"paper {model} {heading}"] = [number(value, 2) for value in rows[f"{prefix}_{name}"]]
    return table


def headline(summary: pandas.DataFrame) -> str:
    """A page's first sentence: who is fastest and who stays closest to the baseline, where enough samples say so."""
    rows = category_rows(summary)
    n, names = rows["n"].max(), short_names(rows)
    tables = len(rows[["model", "category", "task", "setting"]].drop_duplicates())
    pruned = rows[rows["method"] != "baseline"].reset_index(drop=True)
    if tables > 1 or pruned.empty:
        return f"{tables} tables, {len(names)} methods with their settings, n={n} or less in a row."
    if n < LEAST_SAMPLES:
        return f"A demonstration: n={n} is too few for a claim."
    speed = "ttft_speedup" if timed(pruned) else "flops_ratio"
    said = []
    for column, what, digits, sign in (
        (speed, f"the highest {speed.replace('_', ' ').replace('ttft', 'TTFT').replace('flops', 'FLOPs')}", 2, 1),
        ("kl", "the lowest KL divergence from the baseline (nats)", 3, -1),
    ):
        if pruned[column].notna().any():
            best = pruned.iloc[[int((sign * pruned[column]).argmax())]]
            (key,) = zip(best["method"], best["params"], strict=True)
            at = "" if column == speed else f" at {best[speed].iloc[0]:.2f}x"
            said.append(f"{names[key]} has {what}: {formatted(best, column, digits)[0]}{at}")
    return f"{'; '.join(said)} (n={n})."


def summary_notes(summary: pandas.DataFrame, shown: Sequence[tuple[str, pandas.DataFrame]]) -> list[str]:
    """How to read the columns that are shown; the engine's own gain, truncated and failed samples."""
    columns = {name for _, table in shown for name in table}
    notes = [" ".join(told for name, told in READING.items() if name in columns)]
    for _, row in category_rows(summary).iterrows():
        whole = row["method"] == "lazyllm" and row["prompt_tokens_computed"] == row["flops_ratio"] == 1
        if whole and row["ttft_speedup"] > 1:
            notes.append(
                f"On {task_title(row['task'], row['category'], row['setting'])} the engine with nothing pruned has a "
                f"TTFT speedup of {row['ttft_speedup']:.2f}x by itself: what pruning adds is a method's over that."
            )
    tasks = summary[summary["level"] == "task"]
    counts = {
        "samples were longer than the prompt limit and lost their middle (truncated_from).": tasks.loc[
            tasks["method"] == "baseline", "truncated"
        ],
        "records failed and are left out; samples.jsonl names them.": tasks["failed"],
        "samples have no baseline in their run: they count in scores, not in ratios.": tasks["n"] - tasks["n_paired"],
    }
    return notes + [f"{column.sum()} {told}" for told, column in counts.items() if column.sum()]


def run_notes(runs: Sequence[Run], records: pandas.DataFrame) -> list[str]:
    """What whole runs need said: missing shards or records, several commits or machines.

    Args:
        records: of these runs, from ``records_frame``.
    """
    notes, of_one_configuration = [], defaultdict(list)
    for run in runs:
        of_one_configuration[str({**run.config, "shard": None})].append(run)
        if not run.records:
            notes.append(f"{run.path.name} holds no record and is left out.")
        elif not run.finished:
            notes.append(f"{run.path.name} is unfinished: samples may be missing.")
    for shards in of_one_configuration.values():
        if missing := missing_shards([run.shard for run in shards]):
            notes.append(f"{', '.join(run.path.name for run in shards)}: missing shards {', '.join(missing)}.")
    for (old, new), count in superseded(records).items():
        notes.append(f"{count} records of {runs[old].path} stand in {runs[new].path} too: the newer ones count.")
    commits = dict.fromkeys(str(record.commit)[:7] for run in runs for record in run.records if record.commit)
    if len(commits) > 1:
        notes.append(f"Records of commits {', '.join(commits)}.")
    machines = dict.fromkeys(machine(run) for run in runs if any(record.ttft_s for record in run.records))
    if len(machines) > 1:
        notes.append(f"Times of several machines ({'; '.join(machines)}): each method is paired within its own run.")
    return notes


def machine(run: Run) -> str:
    """Its GPUs, or its processor."""
    hardware = run.provenance.get("hardware") or {}
    return ", ".join(map(str, hardware.get("gpus") or [hardware.get("cpu") or "?"]))
