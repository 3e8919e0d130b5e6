"""A run's page: the first sentence, the table, the figure, wins and losses sample by sample, provenance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.methods import title
from lazybench.report import paper, tables
from lazybench.report.figures import prefill, schedules, tradeoff
from lazybench.report.figures.style import save
from lazybench.report.leaderboard import measured_settings
from lazybench.report.results import Results
from lazybench.report.text import markdown, method_title, write_html
from lazybench.run.files import without_folders, write_atomically
from lazybench.run.reading import Run, read_run

ANSWER_CHARACTERS = 600
SAMPLES_SHOWN = 100  # those that a method won or lost first
RIGHT = 0.5  # a score from which on an answer is shown as right
MARKS = ("\u2717", "\u2713")  # ballot x, check mark
TABLES = {
    "table1": "Table 1: score and TTFT speedup (x), ours beside the paper's",
    "table2": "Table 2: prompt tokens computed (%) and overall generation speedup (x) of LazyLLM",
}
FIGURES: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {
    "fig1": ("Figure 1: share of prefill and decoding in the generation time", prefill.figure1),
    "fig2": ("Figure 2: attention of the prompt's tokens with respect to the next token", prefill.figure2),
    "fig5": ("Figure 5: quality over TTFT speedup", tradeoff.figure5),
    "fig6": ("Figure 6: one pruning layer", schedules.figure6),
    "fig7": ("Figure 7: prompt tokens computed over the generation steps", schedules.figure7),
}


def build_tables(results: Results, wanted: Sequence[str]) -> dict[str, tuple[str, pandas.DataFrame]]:
    """Of the paper's tables name to caption and table, for those that the results allow."""
    found = {name: tables.beside_the_papers(results.summary, name) for name in TABLES if name in wanted}
    return {name: (TABLES[name], table) for name, table in found.items() if table is not None}


def build_figures(results: Results, wanted: Sequence[str]) -> Iterator[tuple[str, str, Figure]]:
    """Of the paper's figures name, caption and figure, for those that the results allow."""
    for name, (caption, draw) in FIGURES.items():
        if name in wanted and (figure := draw(results)) is not None:
            yield name, caption, figure


def write_run_report(folder: Path) -> None:
    """The report of one run, beside its samples.jsonl; see ``write_report``.

    Raises:
        UserError: the folder is no run folder.
    """
    run = read_run(Path(folder))
    # written before the marker of its end, and for one shard alone: neither is a fault of this table
    write_report(Results((replace(run, finished=True, config={**run.config, "shard": "0/1"}),)), run.path)


def write_report(results: Results, out: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Write ``summary.csv``, ``table.md``, ``index.html`` and its figures, each atomically.

    Args:
        wanted: tables and figures of the paper, in place of the page's own figure.

    Returns:
        the names of the tables and figures that the results allow.
    """
    results.write_summary(out)
    built = build_tables(results, wanted)
    for name, (caption, table) in built.items():
        write_atomically(out / f"{name}.md", f"{caption}. Paper: {paper.TITLE}\n\n{markdown(table)}".encode())
    figures = build_figures(results, wanted) if wanted else [("tradeoff", tradeoff.CAPTION, settings_figure(results))]
    drawn = [(name, caption, figure) for name, caption, figure in figures if figure is not None]
    for name, _, figure in drawn:
        save(figure, out / f"{name}.png")
    lead, shown, notes = tables.overview(results.summary, results.notes)
    samples, counts = _samples(results)
    write_html(
        out / "index.html",
        title=_title(results),
        lead=lead,
        tables=[*shown, *built.values()],
        notes=notes,
        figures=[(name, caption) for name, caption, _ in drawn],
        counts=counts,
        samples=samples[:SAMPLES_SHOWN],
        samples_in_all=len(samples),
        failed=[record for run in results.runs for record in run.records if record.error],
        runs=[_run_facts(run) for run in results.runs],
        paper=paper.TITLE,
    )
    return [*built, *(name for name, _, _ in drawn)]


def settings_figure(results: Results) -> Figure | None:
    """Every setting's quality over its speed: KL, where no KL was measured the score; None where neither was."""
    settings = measured_settings(results)
    return tradeoff.figure5(results) if settings.empty else tradeoff.settings_figure(settings)


def _title(results: Results) -> str:
    """``SmolLM2-135M-Instruct (Q4_1), qasper, 2026-11-30``; of several models or tasks how many, the last date."""
    found = {
        "models": {record.model for record in results.records["record"]},
        "tasks": {str(run.config["task"].get("name")) for run in results.runs},
    }
    named = [of.pop() if len(of) == 1 else f"{len(of)} {word}" for word, of in found.items() if of]
    return ", ".join([*named, *(run.started[0][:10] for run in results.runs[-1:])]) or "results"


def _run_facts(run: Run) -> dict[str, Any]:
    what = ", ".join(dict.fromkeys(title(record.method) for record in run.records)) or "no method"
    hardware = run.provenance.get("hardware") or {}
    machine = ", ".join(map(str, hardware.get("gpus") or [hardware.get("cpu") or "?"]))
    return {
        "name": run.path.name,
        "finished": run.finished,
        "what": f"{run.config['model'].get('name')} on {machine}: {len(run.records)} records of {what}",
        "provenance": json.dumps(without_folders(run.provenance), indent=1, default=str),
        "config": safe_dump(without_folders(run.config), sort_keys=False),
    }


def _samples(results: Results) -> tuple[list[tuple[str, pandas.DataFrame]], pandas.DataFrame | None]:
    """Each sample with every method's answer, those that most methods won or lost first; and how often each method
    did, where there are scores.
    """
    rows = pandas.DataFrame(
        {
            "sample": f"{run} {record.task} {record.sample_id}",
            "about": f"{record.task}, sample {record.sample_id}, {model}, {record.prompt_tokens} prompt tokens",
            "plain": record.score if record.method == "baseline" else None,
            "method": method_title(record.method, record.setting),
            "score": record.score,
            "prediction": record.error or record.prediction[:ANSWER_CHARACTERS],
        }
        for model, run, record in results.records[["model", "run", "record"]].itertuples(index=False)
        if not record.repeat
    )
    if rows.empty:
        return [], None
    rows[["plain", "score"]] = rows[["plain", "score"]].astype(float)
    more = (rows["score"] - rows.groupby("sample")["plain"].transform("first")).where(rows["plain"].isna())
    rows["result"] = numpy.select([more > 0, more < 0, more == 0], ["won", "lost", "same"], "")
    rows["differs"] = rows["result"].isin(["won", "lost"])
    judged = rows[rows["result"] != ""]
    counts = pandas.crosstab(judged["method"], judged["result"]).reindex(columns=["won", "lost", "same"], fill_value=0)
    rows["score"] = [f"{MARKS[one >= RIGHT]} {100 * one:.0f}" if one == one else "" for one in rows["score"]]
    found = [
        (f"{of['about'].iloc[0]}{f'; won or lost by {differ}' if (differ := of['differs'].sum()) else ''}", differ, of)
        for _, of in rows.groupby("sample", sort=False)
    ]
    found.sort(key=lambda sample: -sample[1])
    shown = ["method", "score", "result", "prediction"]
    return [(about, of[shown]) for about, _, of in found], counts.reset_index() if len(judged) else None
