"""One HTML page with everything in it: it opens anywhere, without a network."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.errors import UserError
from lazybench.report import paper, write_text
from lazybench.report.data_at_hand import measured_task, offline
from lazybench.report.figures.style import save_to
from lazybench.report.figures.tradeoff import tradeoff
from lazybench.report.names import (
    category_rows,
    method_title,
    settings_lines,
    short_names,
    task_title,
    with_settings_in_model,
)
from lazybench.report.notes import CLAIM_NOTE, reading_notes, row_notes
from lazybench.report.results import Results
from lazybench.report.tables import brief, readable, timed
from lazybench.report.words import plain_words
from lazybench.run.files import without_folders
from lazybench.run.reading import Run
from lazybench.tasks.base import Sample

HEAD_CHARACTERS = 600  # of a prompt: its first and its last, where the question stands
PREDICTION_CHARACTERS = 1_500

DEVIATIONS = (
    "The paper's models ran in half precision on an A100; a smaller model or a CPU shows the method at work, "
    "not the paper's numbers. Compare ratios within a run.",
    "The paper does not say which layers count into its share of prompt tokens computed; here it is the mean over "
    "the layers, and per stage in the records.",
    "Static token pruning follows the authors' later description (arXiv 2410.08391): probe the first quarter of the "
    "layers, drop, run again from the first layer; variant continue prunes once and goes on.",
    "The paper does not say how its keep ratios were chosen; each row here names its own.",
    "Fidelity (same token as the baseline, KL divergence) is not in the paper; it decides more than the score where "
    "samples are few or the model is small.",
)


def write_page(
    path: Path,
    results: Results,
    tables: dict[str, tuple[str, pandas.DataFrame]],
    figures: list[tuple[str, str, Figure]],
    texts: bool,
    data_root: Path | None,
) -> None:
    """Write the page.

    Args:
        texts: show prompt heads and answers where the data is at hand; predictions always stand.
        data_root: folder of LongBench-schema JSONL files; None: where the run read them.
    """
    environment = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)
    summary = results.summary
    names = short_names(summary) if len(summary) else {}
    shown = [(name, caption, inline(figure)) for name, caption, figure in figures]
    if len(summary) and not any(name.startswith("fig5") for name, _, _ in figures):  # figure 5 shows the same
        shown.insert(
            0,
            (
                "tradeoff",
                f"Quality over {'TTFT speedup' if timed(summary) else 'FLOPs ratio'}, by model and category",
                inline(tradeoff(with_settings_in_model(summary))),
            ),
        )
    page = environment.get_template("page.html").render(
        paper=paper.TITLE,
        runs=[_run_facts(run) for run in results.runs],
        summaries=_summaries(summary, names),
        words=plain_words(summary),
        parameters=settings_lines(names),
        timed=len(summary) and timed(summary),
        reading=[*reading_notes(summary), CLAIM_NOTE] if len(summary) else [],
        notes=[*(row_notes(summary, names) if len(summary) else ()), *results.notes],
        failed=[record for records in results.records for record in records if record.error],
        tables=[(caption, table) for caption, table in tables.values()],
        figures=shown,
        samples=_for_script(_browser(results, texts, data_root)),
        texts=texts,
        deviations=DEVIATIONS,
    )
    write_text(path, page)


def inline(figure: Figure) -> str:
    """A figure as the source of an img element."""
    buffer = io.BytesIO()
    save_to(figure, buffer, "png")
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()


def _summaries(
    summary: pandas.DataFrame, names: dict[tuple[str, str], str]
) -> list[tuple[str, list[tuple[str, pandas.DataFrame]], pandas.DataFrame]]:
    """For each model what decides, category by category; and every row with every number."""
    found = []
    for model, rows in summary.groupby("model", sort=False) if len(summary) else ():
        keys = ["category", "task", "setting"]
        sections = category_rows(rows).groupby(keys, sort=False)
        short = [
            (task_title(str(task), str(category), str(setting)), brief(section, names))
            for (category, task, setting), section in sections
        ]
        found.append((str(model), short, readable(rows)))
    return found


def _run_facts(run: Run) -> dict[str, Any]:
    model, hardware = run.provenance.get("model") or {}, run.provenance.get("hardware") or {}
    device = ", ".join(hardware.get("gpus") or [hardware.get("cpu") or "?"])
    commit = str(run.provenance.get("commit") or "no commit")[:10]
    return {
        "name": ", ".join(folder.name for folder in run.folders),
        "finished": run.finished,
        "what": {
            "model": run.model,
            "dtype": model.get("dtype", "?"),
            "datasets": ", ".join(run.config["task"]["datasets"]),
            "methods": ", ".join(dict.fromkeys(method_title(r.method) for r in run.records)),
            "records": len(run.records),
            "samples": len({(r.task, r.sample_id) for r in run.records}),
            "hardware": f"{device}, {hardware.get('torch_threads', '?')} threads",
            "started": run.provenance.get("started_at", "?"),
            "code": commit + (" with uncommitted changes" if run.provenance.get("dirty") else ""),
        },
        "provenance": json.dumps(without_folders(run.provenance), indent=2, default=str),
        "config": safe_dump(without_folders(run.config), sort_keys=False),
    }


def _browser(results: Results, texts: bool, data_root: Path | None) -> list[dict[str, Any]]:
    """One entry per sample: what it is, and each method's prediction and score (the first repeat)."""
    entries: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for index, (run, records) in enumerate(zip(results.runs, results.records, strict=True)):
        documents = _documents(run, data_root) if texts else {}
        for record in records:
            if record.repeat:
                continue
            name = (record.task, record.sample_id)
            key = (record.model, *name, index)
            entry = entries.setdefault(
                key,
                {
                    "model": record.model,
                    "task": record.task,
                    "id": record.sample_id,
                    "prompt_tokens": record.prompt_tokens,
                    "text": _text(documents.get(name)),
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
