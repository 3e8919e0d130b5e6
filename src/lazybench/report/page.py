"""A run's page: the first sentence, the table, the figure, wins and losses sample by sample, provenance."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.methods import title
from lazybench.report import paper, tables
from lazybench.report.figures import tradeoff
from lazybench.report.figures.style import save
from lazybench.report.html import write_html
from lazybench.report.leaderboard import measured_settings
from lazybench.report.results import Results
from lazybench.report.summary import category_rows, with_setting
from lazybench.report.text import label_lines, method_title, short_names
from lazybench.run.files import without_folders
from lazybench.run.reading import Run, read_run
from lazybench.run.record import Record

SETTINGS_CAPTION = "A point is a setting, a line joins a method's. KL divergence: geometric mean over samples."
ANSWER_CHARACTERS = 600
SAMPLES_SHOWN = 100  # those that a method won or lost first
RIGHT = 0.5  # a score from which on an answer is shown as right
MARKS = ("\u2717", "\u2713")  # ballot x, check mark
PANELS = 4  # models in a picture
NAMED = 3  # models or tasks in a title; more are counted


def write_run_report(folder: Path) -> None:
    """Write ``summary.csv``, ``table.md``, ``tradeoff.png`` and ``index.html`` beside a run's samples.jsonl, each
    atomically.

    Raises:
        UserError: the folder is no run folder.
    """
    run = read_run(Path(folder))
    # written before the marker of its end, and for one shard alone: neither is a fault of this table
    results = Results((replace(run, finished=True, config={**run.config, "shard": "0/1"}),))
    results.write_summary(run.path)
    drawn = settings_figures(results)
    for name, figure in drawn.items():
        save(figure, run.path / f"{name}.png")
    write_page(run.path / "index.html", results, [(name, SETTINGS_CAPTION) for name in drawn])


def settings_figures(results: Results) -> dict[str, Figure]:
    """Every setting's quality over its speed: KL, where no KL was measured the score.

    Returns:
        ``tradeoff``, and ``tradeoff_2`` and so on where there are more than ``PANELS`` models; none of nothing.
    """
    if len(settings := measured_settings(results)):
        models = settings.groupby("model", sort=False)["method_name"].nunique().sort_values(ascending=False).index
        groups = [models[start : start + PANELS] for start in range(0, len(models), PANELS)]
        figures = [tradeoff.settings_figure(settings[settings["model"].isin(group)]) for group in groups]
    elif (summary := with_setting(results.summary)).empty:
        figures = []
    else:
        score = tradeoff.measured(summary, ("relative_score",))
        figures = [tradeoff.figure5(summary, score or "fidelity_top1")]
    return {f"tradeoff_{number}" if number > 1 else "tradeoff": one for number, one in enumerate(figures, 1)}


def write_page(
    path: Path,
    results: Results,
    figures: Sequence[tuple[str, str]] = (),
    shown: Iterable[tuple[str, pandas.DataFrame]] = (),
) -> None:
    """Write the page.

    Args:
        figures: name and caption of each; NAME.png lies beside the page.
        shown: caption and table of each that stands there too.
    """
    summary = results.summary
    names = short_names(category_rows(summary)) if len(summary) else {}
    decisive = tables.sections(summary, names) if len(summary) else []
    samples, counts = _samples(results)
    write_html(
        path,
        title=_title(results.runs),
        lead=tables.headline(summary) if len(summary) else "no samples measured yet",
        tables=[*decisive, *shown],
        notes=[*label_lines(names), *(tables.summary_notes(summary, decisive) if decisive else ()), *results.notes],
        figures=figures,
        counts=counts,
        samples=samples[:SAMPLES_SHOWN],
        samples_in_all=len(samples),
        failed=[record for _, record in results.labelled if record.error],
        runs=[_run_facts(run) for run in results.runs],
        paper=paper.TITLE,
    )


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
