"""A run's page: the first sentence, the table, the figure, wins and losses sample by sample, provenance."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.methods import title
from lazybench.report import paper, tables
from lazybench.report.artefacts import build_figures, build_tables
from lazybench.report.figures import tradeoff
from lazybench.report.figures.style import save
from lazybench.report.html import write_html
from lazybench.report.leaderboard import measured_settings
from lazybench.report.results import Results
from lazybench.report.summary import with_setting
from lazybench.report.text import markdown, method_title
from lazybench.run.files import without_folders, write_atomically
from lazybench.run.reading import Run, read_run
from lazybench.run.record import Record

SETTINGS_CAPTION = "A point is a setting, a line joins a method's. KL divergence: geometric mean over samples."
ANSWER_CHARACTERS = 600
SAMPLES_SHOWN = 100  # those that a method won or lost first
RIGHT = 0.5  # a score from which on an answer is shown as right
MARKS = ("\u2717", "\u2713")  # ballot x, check mark
WIDTH = 160  # characters of a table
PANELS = 4  # models in a picture
NAMED = 3  # models or tasks in a title; more are counted


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
    drawn = list(build_figures(results, wanted) if wanted else settings_figures(results))
    for name, _, figure in drawn:
        save(figure, out / f"{name}.png")
    said = tables.overview(results.summary, results.notes, WIDTH)
    samples, counts = _samples(results)
    write_html(
        out / "index.html",
        title=_title(results.runs),
        lead=said.lead,
        tables=[*said.tables, *built.values()],
        notes=[*said.labels, *said.notes],
        figures=[(name, caption) for name, caption, _ in drawn],
        counts=counts,
        samples=samples[:SAMPLES_SHOWN],
        samples_in_all=len(samples),
        failed=[record for run in results.runs for record in run.records if record.error],
        runs=[_run_facts(run) for run in results.runs],
        paper=paper.TITLE,
    )
    return [*built, *(name for name, _, _ in drawn)]


def settings_figures(results: Results) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of every setting's quality over its speed: KL, where no KL was measured the score; of
    more than ``PANELS`` models several figures, of nothing none.
    """
    if len(settings := measured_settings(results)):
        models = settings.groupby("model", sort=False)["method_name"].nunique().sort_values(ascending=False).index
        groups = [models[start : start + PANELS] for start in range(0, len(models), PANELS)]
        figures = [tradeoff.settings_figure(settings[settings["model"].isin(group)]) for group in groups]
    else:
        summary = with_setting(results.summary)
        figures = [tradeoff.figure5(summary)] if len(summary) else []
    for number, figure in enumerate(figures, 1):
        yield f"tradeoff_{number}" if number > 1 else "tradeoff", SETTINGS_CAPTION, figure


def _title(runs: Sequence[Run]) -> str:
    """``SmolLM2-135M-Instruct (Q4_1), qasper, 2026-11-30``"""
    models = dict.fromkeys(_model(run) for run in runs)
    tasks = dict.fromkeys(str(run.config["task"].get("name")) for run in runs)
    dates = sorted(dict.fromkeys(date for run in runs if (date := run.started[0][:10])))
    named = [
        ", ".join(found) if len(found) <= NAMED else f"{len(found)} {word}"
        for found, word in ((models, "models"), (tasks, "tasks"))
    ]
    return ", ".join(filter(None, [*named, " to ".join(dict.fromkeys((*dates[:1], *dates[-1:])))])) or "results"


def _model(run: Run) -> str:
    """The model's name as its records have it; as the configuration has it, while there is none."""
    return run.records[0].model if run.records else str(run.config["model"].get("name"))


def _run_facts(run: Run) -> dict[str, Any]:
    methods = ", ".join(dict.fromkeys(title(record.method) for record in run.records))
    return {
        "name": run.path.name,
        "finished": run.finished,
        "what": f"{_model(run)} on {tables.machine(run)}: {len(run.records)} records of {methods or 'no method'}",
        "provenance": json.dumps(without_folders(run.provenance), indent=1, default=str),
        "config": safe_dump(without_folders(run.config), sort_keys=False),
    }


def _samples(results: Results) -> tuple[list[dict[str, Any]], pandas.DataFrame | None]:
    """Each sample with every method's answer, those that most methods won or lost first; and how often each method
    did, where there are scores.
    """
    groups: dict[tuple[int, str, str], list[Record]] = defaultdict(list)
    for place, run in enumerate(results.runs):
        for record in run.records:
            if not record.repeat:
                groups[place, record.task, record.sample_id].append(record)
    found: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, task, sample_id), records in groups.items():
        plain = next((record.score for record in records if record.method == "baseline"), None)
        answers = []
        for record in records:
            name, score, result = method_title(record.method, record.setting), "", ""
            if record.score is not None:
                score = f"{MARKS[record.score >= RIGHT]} {100 * record.score:.0f}"
                if plain is not None and record.method != "baseline":
                    result = "won" if record.score > plain else "lost" if record.score < plain else "same"
                    counts[name][result] += 1
            prediction = record.error or record.prediction[:ANSWER_CHARACTERS]
            answers.append({"method": name, "score": score, "result": result, "prediction": prediction})
        differ = sum(answer["result"] in ("won", "lost") for answer in answers)
        about = f"{task}, sample {sample_id}, {records[0].model}, {records[0].prompt_tokens} prompt tokens"
        about += f"; won or lost by {differ}" if differ else ""
        found.append({"about": about, "answers": pandas.DataFrame(answers), "differ": differ})
    rows = [{"method": name, **{word: of[word] for word in ("won", "lost", "same")}} for name, of in counts.items()]
    found.sort(key=lambda sample: -sample["differ"])
    return found, pandas.DataFrame(rows) if rows else None
