"""A summary as tables: a run's own, the paper's 1 and 2 with our numbers beside theirs, and what they say in words."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence

import pandas

from lazybench.report import paper
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.summary import category_rows, superseded
from lazybench.report.text import (
    Names,
    category_title,
    formatted,
    markdown,
    method_title,
    number,
    rounded,
    settings_label,
    short_names,
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
BRIEF = {  # heading to a summary's column, its digits and factor, and digits of its bounds
    "score": ("score", 1, 100.0, 0),
    "same token %": ("fidelity_top1", 1, 100.0, 0),
    "KL nats": ("kl", 3, 1.0, 3),
    "FLOPs ratio": ("flops_ratio", 2, 1.0, 2),
    "TTFT s": ("ttft_median_s", 2, 1.0, 2),
    "TTFT speedup": ("ttft_speedup", 2, 1.0, 2),
    "decoding step x": ("decode_step_ratio", 2, 1.0, None),
}
SPARED = ("TTFT s", "same token %", "decoding step x")  # the first of them where there is no room for all
PAPERS = {  # a table of the paper to its headings, each with a summary's column and its factor
    "table1": {"score": ("score", 100.0), "TTFT speedup": ("ttft_speedup", 1.0)},
    "table2": {"prompt computed %": ("prompt_tokens_computed", 100.0), "overall speedup": ("generation_speedup", 1.0)},
}
Titled = list[tuple[str, pandas.DataFrame]]  # tables and their titles


def overview(summary: pandas.DataFrame, notes: Sequence[str] = ()) -> tuple[str, Titled, list[str]]:
    """A sentence, of each model and task a table of what decides, and notes: what short names stand for comes first.

    Of a category with several tasks its macro-average stands; every number is in summary.csv.

    Args:
        summary: from ``summarise``.
        notes: on whole runs, from ``run_notes``.
    """
    if summary.empty:
        return "no samples measured yet", [], [*notes]
    names = short_names(category_rows(summary))
    tables = sections(summary, names)
    labels = [f"{name}: {text}" for key, name in names.items() if (text := settings_label(*key))]
    return headline(summary), tables, [*labels, *summary_notes(summary, tables), *notes]


def run_table(summary: pandas.DataFrame, notes: Sequence[str] = ()) -> str:
    """An ``overview`` as Markdown, no wider than a terminal."""
    lead, tables, said = overview(summary, notes)
    for name in SPARED:
        if max((markdown(table).index("\n") for _, table in tables), default=0) > WIDTH:
            tables = [(title, table.drop(columns=name, errors="ignore")) for title, table in tables]
    parts = [f"**{title}**\n\n{markdown(table)}" for title, table in tables]
    words = [*said, "Everything else (every task, seconds, memory): summary.csv.", lead]
    return "\n".join(parts) + "\n" + "  \n".join(textwrap.fill(line, WIDTH - 2) for line in words) + "\n"


def sections(summary: pandas.DataFrame, names: Names) -> Titled:
    """For each model and category or task its title and the columns that decide, as rounded text; those that nothing
    fills are left out.
    """
    found = []
    for (model, category, task), rows in category_rows(summary).groupby(["model", "category", "task"], sort=False):
        table = pandas.DataFrame(rounded(rows, BRIEF))
        table.insert(0, "method", [names[key] for key in zip(rows["method"], rows["params"], strict=True)])
        table.insert(1, "n", [str(n) for n in rows["n"]])
        unsure = (rows["ttft_speedup_low"] <= 1) & (rows["ttft_speedup_high"] >= 1) & (rows["method"] != "baseline")
        if "TTFT speedup" in table:
            table["TTFT speedup"] += [" ?" * no for no in unsure]
        found.append((f"{model}, {task or category_title(str(category))}", table))
    return found


def beside_the_papers(summary: pandas.DataFrame, name: str) -> pandas.DataFrame | None:
    """Table 1 (scores 0..100) or 2 with the paper's two models: a row for each model, category, method and its
    settings, and for each of the paper's that has none; None where we measured none of its numbers.
    """
    columns, papers = PAPERS[name], paper.read(name)
    ours = category_rows(summary) if len(summary) else summary
    ours = ours[ours["method"].isin(papers["method"])] if name == "table2" and len(ours) else ours
    if not any(column in ours and ours[column].notna().any() for column, _ in columns.values()):
        return None
    rows = papers.merge(ours, on=["category", "method"], how="outer", sort=False)
    # the paper's order, then any other
    orders = {name: list(dict.fromkeys([*papers[name], *ours[name]])) for name in ("category", "method")}
    rows = rows.sort_values(
        ["category", "method"], key=lambda column: column.map(orders[str(column.name)].index), kind="stable"
    ).reset_index(drop=True)
    table = pandas.DataFrame({"category": rows["category"].map(category_title), "model": rows["model"].fillna("")})
    keys = zip(rows["method"], rows["params"].fillna(""), strict=True)
    table["method"] = [method_title(*key) for key in keys]
    table["n"] = [number(count, 0) for count in rows["n"]]
    for heading, (column, factor) in columns.items():
        table[heading] = formatted(rows, column, 2, factor, 2) if column in rows else ""
    for prefix, model in (("llama2", "Llama 2"), ("xgen", "XGen")):
        for heading, (column, _) in columns.items():
            table[f"paper {model} {heading}"] = [number(value, 2) for value in rows[f"{prefix}_{column}"]]
    return table


def headline(summary: pandas.DataFrame) -> str:
    """A page's first sentence: who is fastest and who stays closest to the baseline, where enough samples say so."""
    rows = category_rows(summary)
    n, names = rows["n"].max(), short_names(rows)
    tables = len(rows[["model", "category", "task"]].drop_duplicates())
    pruned = rows[rows["method"] != "baseline"].reset_index(drop=True)
    if tables > 1 or pruned.empty:
        return f"{tables} tables, {len(names)} methods with their settings, n={n} or less in a row."
    if n < LEAST_SAMPLES:
        return f"A demonstration: n={n} is too few for a claim."
    said, speed = [], "TTFT speedup" if pruned["ttft_speedup"].notna().any() else "FLOPs ratio"
    closest = "lowest KL divergence from the baseline (nats)"
    for heading, what, sign in ((speed, f"highest {speed}", 1), ("KL nats", closest, -1)):
        best = pruned.iloc[[int((sign * pruned[BRIEF[heading][0]]).fillna(-math.inf).argmax())]]
        (key,), (at,) = zip(best["method"], best["params"], strict=True), best[BRIEF[speed][0]]
        if cell := formatted(best, *BRIEF[heading])[0]:
            said.append(f"{names[key]} has the {what}: {cell}{f' at {at:.2f}x' * (heading != speed)}")
    return f"{'; '.join(said)} (n={n})."


def summary_notes(summary: pandas.DataFrame, shown: Titled) -> list[str]:
    """How to read the columns that are shown; truncated and failed samples."""
    columns = {name for _, table in shown for name in table}
    notes = [" ".join(told for name, told in READING.items() if name in columns)]
    tasks = summary[summary["level"] == "task"]
    truncated = tasks.loc[tasks["method"] == "baseline", "truncated"]
    counts = {
        "samples were longer than the prompt limit and lost their middle (truncated_from).": truncated,
        "records failed and are left out; samples.jsonl names them.": tasks["failed"],
        "samples have no baseline in their run: they count in scores, not in ratios.": tasks["n"] - tasks["n_paired"],
    }
    return notes + [f"{column.sum()} {told}" for told, column in counts.items() if column.sum()]


def run_notes(runs: Sequence[Run], records: pandas.DataFrame) -> list[str]:
    """What whole runs need said: lacking shards or records, several commits.

    Args:
        records: of these runs, from ``records_frame``.
    """
    notes, of_one_configuration = [], defaultdict(list)
    for run in runs:
        of_one_configuration[str({**run.config, "shard": None})].append(run)
        if not run.finished or not run.records:
            notes.append(f"{run.path.name} is unfinished: samples may be missing.")
    for shards in of_one_configuration.values():
        if missing := missing_shards([run.shard for run in shards]):
            notes.append(f"{', '.join(run.path.name for run in shards)}: missing shards {', '.join(missing)}.")
    for (old, new), count in superseded(records).items():
        notes.append(f"{count} records of {runs[old].path} stand in {runs[new].path} too: the newer ones count.")
    commits = dict.fromkeys(str(record.commit)[:7] for run in runs for record in run.records if record.commit)
    return notes + [f"Records of commits {', '.join(commits)}."] * (len(commits) > 1)
