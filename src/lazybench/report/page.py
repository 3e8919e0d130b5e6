"""One HTML page: the first sentence, the table, the figure, wins and losses; it needs no network and runs nothing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader
from yaml import safe_dump

from lazybench.errors import UserError
from lazybench.methods import title
from lazybench.report import paper, tables
from lazybench.report.data_at_hand import measured_task, offline
from lazybench.report.names import category_rows, label_lines, method_title, short_names
from lazybench.report.notes import headline, machine, reading, row_notes
from lazybench.report.results import Results
from lazybench.run.files import without_folders, write_atomically
from lazybench.run.reading import Run
from lazybench.run.record import Record
from lazybench.tasks.base import Sample

HEAD_CHARACTERS = 600  # of a prompt: its first and its last, where the question stands
PREDICTION_CHARACTERS = 600
SAMPLES_SHOWN = 100  # those that a method won or lost first
NAMED = 3  # models or tasks in a title; more are counted
RIGHT = 0.5  # a score from which on an answer is shown as right
ENVIRONMENT = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)


def write_page(
    path: Path,
    results: Results,
    figures: Sequence[tuple[str, str]] = (),
    shown: Iterable[tuple[str, pandas.DataFrame]] = (),
    texts: bool = True,
    data_root: Path | None = None,
) -> None:
    """Write the page.

    Args:
        figures: name and caption of each; NAME.png lies beside the page.
        shown: caption and table of each that stands there too.
        texts: show prompt heads and answers where the data is at hand; predictions always stand.
        data_root: folder of LongBench-schema JSONL files; None: where the run read them.
    """
    summary = results.summary
    names = short_names(category_rows(summary)) if len(summary) else {}
    samples, counts = _samples(results, texts, data_root)
    render(
        path,
        "page.html",
        title=_title(results.runs),
        headline=headline(summary) if len(summary) else "no samples measured yet",
        sections=tables.sections(summary, names) if len(summary) else [],
        parameters=[line for key, line in label_lines(names).items() if line != names[key]],
        notes=[reading(summary), *(row_notes(summary) if len(summary) else ()), *results.notes],
        figures=figures,
        counts=counts,
        samples=samples[:SAMPLES_SHOWN],
        samples_in_all=len(samples),
        failed=[record for _, record in results.labelled if record.error],
        tables=list(shown),
        runs=[_run_facts(run) for run in results.runs],
        paper=paper.TITLE,
    )


def render(path: Path, template: str, **values: Any) -> None:
    """A page from its template; every text is escaped."""
    write_atomically(path, ENVIRONMENT.get_template(template).render(values).encode())


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
        "what": f"{_model(run)} on {machine(run)}: {len(run.records)} records of {methods or 'no method'}",
        "provenance": json.dumps(without_folders(run.provenance), indent=1, default=str),
        "config": safe_dump(without_folders(run.config), sort_keys=False),
    }


def _samples(
    results: Results, texts: bool, data_root: Path | None
) -> tuple[list[dict[str, Any]], pandas.DataFrame | None]:
    """Each sample with every method's answer beside the baseline's, those that one won or lost first; and how often
    each method did, where there are scores.
    """
    groups: dict[tuple[int, str, str], list[Record]] = defaultdict(list)
    for place, run in enumerate(results.runs):
        for record in run.records:
            if not record.repeat:
                groups[place, record.task, record.sample_id].append(record)
    found: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (place, task, sample_id), records in groups.items():
        plain = next((record.score for record in records if record.method == "baseline"), None)
        answers = []
        for record in records:
            compared = record.score is not None and plain is not None and record.method != "baseline"
            gain = (record.score or 0.0) - (plain or 0.0) if compared else 0.0
            result = "won" if gain > 0 else "lost" if gain < 0 else "same"
            name = method_title(record.method, record.setting)
            if compared:
                counts[name][result] += 1
            answers.append(
                {
                    "method": name,
                    "result": result if gain else "",
                    "right": record.score is not None and record.score >= RIGHT,
                    "score": "" if record.score is None else f"{100 * record.score:.0f}",
                    "prediction": record.error or record.prediction[:PREDICTION_CHARACTERS],
                }
            )
        about = {"place": place, "task": task, "id": sample_id, "model": records[0].model, "answers": answers}
        found.append({**about, "tokens": records[0].prompt_tokens, "gains": sum(bool(a["result"]) for a in answers)})
    found.sort(key=lambda sample: -sample["gains"])
    documents: dict[int, dict[tuple[str, str], Sample]] = {}
    for sample in found[:SAMPLES_SHOWN] if texts else ():
        if (place := sample["place"]) not in documents:
            documents[place] = _documents(results.runs[place], data_root)
        if document := documents[place].get((sample["task"], sample["id"])):
            head, rest = document.prompt[:HEAD_CHARACTERS], document.prompt[HEAD_CHARACTERS:]
            tail = rest[-HEAD_CHARACTERS:]
            sample |= {"prompt": f"{head}\n\n[...]\n\n{tail}" if tail else head, "wanted": " / ".join(document.answers)}
    rows = [
        {"method": name, **{word: str(of[word]) for word in ("won", "lost", "same")}, "n": str(of.total())}
        for name, of in counts.items()
    ]
    return found, pandas.DataFrame(rows) if rows else None


def _documents(run: Run, data_root: Path | None) -> dict[tuple[str, str], Sample]:
    """The run's samples, where the data is at hand."""
    found = {}
    for name in run.config["task"]["datasets"]:
        try:
            with offline():  # a report downloads nothing
                samples = measured_task(run, name, data_root).samples()
        except (UserError, OSError):  # not at hand, or other data: the sample stands there without its texts
            continue
        found.update({(name, sample.sample_id): sample for sample in samples})
    return found
