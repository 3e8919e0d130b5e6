"""One HTML page with everything in it: it opens anywhere, without a network."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from yaml import safe_dump

from lazybench.errors import UserError
from lazybench.report import paper, tables
from lazybench.report.artefacts import Drawn, write_text
from lazybench.report.data_at_hand import measured_task, offline
from lazybench.report.figures.style import save_to
from lazybench.report.figures.tradeoff import draw
from lazybench.report.names import category_rows, method_title, settings_lines, short_names, timed, with_setting
from lazybench.report.notes import machine, plain_words, reading_notes, row_notes
from lazybench.report.results import Results
from lazybench.store.files import without_folders
from lazybench.store.reading import Run
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
    shown: dict[str, tuple[str, pandas.DataFrame]],
    figures: Sequence[Drawn],
    texts: bool,
    data_root: Path | None,
) -> None:
    """Write the page.

    Args:
        shown: name to caption and table.
        texts: show prompt heads and answers where the data is at hand; predictions always stand.
        data_root: folder of LongBench-schema JSONL files; None: where the run read them.
    """
    environment = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)
    summary = results.summary
    names = short_names(category_rows(summary)) if len(summary) else {}
    drawn = [(name, caption, inline(figure)) for name, caption, figure in figures]
    if len(summary) and not any(name.startswith("fig5") for name, _, _ in figures):  # figure 5 shows the same
        caption = f"Quality over {'TTFT speedup' if timed(summary) else 'FLOPs ratio'}, by model and category"
        drawn.insert(0, ("tradeoff", caption, inline(draw(with_setting(summary)))))
    page = environment.get_template("page.html").render(
        title=", ".join(dict.fromkeys(f"{run.config['task'].get('name')} on {_model(run)}" for run in results.runs)),
        paper=paper.TITLE,
        runs=[_run_facts(run) for run in results.runs],
        sections=tables.sections(summary, names) if len(summary) else [],
        words=plain_words(summary),
        parameters=settings_lines(names),
        reading=reading_notes(summary) if len(summary) else [],
        notes=[*(row_notes(summary) if len(summary) else ()), *results.notes],
        failed=[record for _, record in results.labelled if record.error],
        tables=list(shown.values()),
        figures=drawn,
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


def _model(run: Run) -> str:
    """The model's name as its records have it; as the configuration has it, while there is none."""
    return run.records[0].model if run.records else str(run.config["model"].get("name"))


def _run_facts(run: Run) -> dict[str, Any]:
    model, hardware = run.provenance.get("model") or {}, run.provenance.get("hardware") or {}
    commit = str(run.provenance.get("commit") or "no commit")[:10]
    return {
        "name": run.path.name,
        "finished": run.finished,
        "what": {
            "model": _model(run),
            "dtype": model.get("dtype", "?"),
            "datasets": ", ".join(run.config["task"]["datasets"]),
            "methods": ", ".join(dict.fromkeys(method_title(record.method) for record in run.records)),
            "records": len(run.records),
            "samples": len({(record.task, record.sample_id) for record in run.records}),
            "hardware": f"{machine(run)}, {hardware.get('torch_threads', '?')} threads",
            "started": run.provenance.get("started_at", "?"),
            "code": commit + (" with uncommitted changes" if run.provenance.get("dirty") else ""),
        },
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
