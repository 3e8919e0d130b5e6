"""One HTML page with everything in it: it opens anywhere, without a network."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.errors import UserError
from lazybench.methods import title
from lazybench.report import paper, tables
from lazybench.report.artefacts import Drawn, write_text
from lazybench.report.data_at_hand import measured_task, offline
from lazybench.report.figures.style import save_to
from lazybench.report.figures.tradeoff import draw
from lazybench.report.names import category_rows, method_title, settings_lines, short_names, with_setting
from lazybench.report.notes import machine, reading, row_notes
from lazybench.report.results import Results
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.tasks.base import Sample

HEAD_CHARACTERS = 600  # of a prompt: its first and its last, where the question stands
PREDICTION_CHARACTERS = 1_500


def write_page(
    path: Path,
    results: Results,
    shown: Mapping[str, tuple[str, pandas.DataFrame]] = MappingProxyType({}),
    figures: Sequence[Drawn] = (),
    texts: bool = True,
    data_root: Path | None = None,
) -> None:
    """Write the page.

    Args:
        shown: name to caption and table.
        texts: show prompt heads and answers where the data is at hand; predictions always stand.
        data_root: folder of LongBench-schema JSONL files; None: where the run read them.
    """
    summary = results.summary
    names = short_names(category_rows(summary)) if len(summary) else {}
    if len(summary) and not any(name.startswith("fig5") for name, _, _ in figures):  # figure 5 shows the same
        figures = [("tradeoff", "Quality over speed, by model and category", draw(with_setting(summary))), *figures]
    render(
        path,
        "page.html",
        title=", ".join(dict.fromkeys(f"{run.config['task'].get('name')} on {_model(run)}" for run in results.runs)),
        paper=paper.TITLE,
        runs=[_run_facts(run) for run in results.runs],
        sections=tables.sections(summary, names) if len(summary) else [],
        parameters=settings_lines(names),
        reading=reading(summary),
        notes=[*(row_notes(summary) if len(summary) else ()), *results.notes],
        failed=[record for _, record in results.labelled if record.error],
        tables=list(shown.values()),
        figures=[(name, caption, inline(figure)) for name, caption, figure in figures],
        samples=_for_script(_browser(results, texts, data_root)),
        texts=texts,
    )


def render(path: Path, template: str, **values: Any) -> None:
    """A page from its template; every text is escaped."""
    environment = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)
    write_text(path, environment.get_template(template).render(values))


def inline(figure: Figure) -> str:
    """A figure as the source of an img element."""
    buffer = io.BytesIO()
    save_to(figure, buffer, "png")
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def _model(run: Run) -> str:
    """The model's name as its records have it; as the configuration has it, while there is none."""
    return run.records[0].model if run.records else str(run.config["model"].get("name"))


def _run_facts(run: Run) -> dict[str, Any]:
    methods = ", ".join(dict.fromkeys(title(record.method) for record in run.records))
    return {
        "name": run.path.name,
        "finished": run.finished,
        "what": f"{_model(run)} on {machine(run)}: {len(run.records)} records of {methods or 'no method'}",
        "provenance": json.dumps(without_folders(run.provenance), indent=2, default=str),
        "config": safe_dump(without_folders(run.config), sort_keys=False),
    }


def _browser(results: Results, texts: bool, data_root: Path | None) -> list[dict[str, Any]]:
    """One entry per sample: what it is, and each method's prediction and score (the first repeat)."""
    entries: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for index, (run, told) in enumerate(zip(results.runs, results.settings, strict=True)):
        documents = _documents(run, data_root) if texts else {}
        for record in run.records:
            if record.repeat:
                continue
            model = f"{record.model} {told[record.category]}".strip()
            entry = entries.setdefault(
                (model, record.task, record.sample_id, index),
                {
                    "model": model,
                    "task": record.task,
                    "id": record.sample_id,
                    "prompt_tokens": record.prompt_tokens,
                    "text": _text(documents.get((record.task, record.sample_id))),
                    "methods": [],
                },
            )
            entry["methods"].append(
                {
                    "method": method_title(record.method, record.setting),
                    "prediction": record.prediction[:PREDICTION_CHARACTERS],
                    "score": None if record.score is None else round(100 * record.score, 1),
                    "ttft_s": None if record.ttft_s is None else round(record.ttft_s, 3),
                    "error": record.error,
                }
            )
    return list(entries.values())


def _text(sample: Sample | None) -> dict[str, Any] | None:
    """The prompt's head and tail and the answers, where the data is at hand."""
    if sample is None:
        return None
    head, rest = sample.prompt[:HEAD_CHARACTERS], sample.prompt[HEAD_CHARACTERS:]
    return {"head": head, "tail": rest[-HEAD_CHARACTERS:], "answers": list(sample.answers)}


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


def _for_script(value: Any) -> str:
    """JSON that can stand in a script element whatever the texts hold."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
