"""The leaderboard as files: Markdown, CSV, one HTML page whose tables sort, and the front as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from lazybench.errors import UserError
from lazybench.report import memory, write_text
from lazybench.report.artefacts import file_name, write_figure
from lazybench.report.figures import front
from lazybench.report.leaderboard import FLOPS, NOT_JUDGED, SPEEDS, TTFT, Section, matrix, readable, sections
from lazybench.report.page import inline
from lazybench.report.results import Results
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.tables import markdown

READING = (
    "KL nats: divergence of the next-token distribution from the plain model's, geometric mean over samples; first: of "
    "the first token, which the prefill alone decides; later: of the others.",
    "Fixed: what the settings of a row have in common. Same token %: of the plain model's tokens. Decoding step x: "
    "method over plain model. KV %, Aux %: bytes at the end, of the plain model's KV cache. FLOPs ratio: FLOPs of the "
    "plain prefill over the method's.",
    f"[brackets]: 95% interval; (parentheses), below {LEAST_SAMPLES} samples: lowest to highest.",
    "Each method at this speed on its own curve, between two of its settings that are neighbours: linear in the "
    "logarithm of the speed. Nothing is extrapolated: a row stays empty where the speeds that its settings were "
    "measured at (last column) do not enclose this one, or where one of the two leaves most prompts whole.",
)
MATRIX_READING = (
    "Row over column: the ratio of their KL divergences on the same samples, geometric mean. +: the row is closer to "
    "the plain model, -: further (the 95% interval leaves out 1); ++ and --: the sign test says so too, corrected for "
    "the number of pairs (Holm). No mark: undecided; comparisons.csv says how many samples would decide it."
)


def write_leaderboard(results: Results, out: Path, command: str, speeds: Sequence[float] = SPEEDS) -> None:
    """Write leaderboard.md, .csv and .html, comparisons.csv, front.png and .pdf (one for each model); memory.md, .csv.

    Raises:
        UserError: no record has a divergence.
    """
    found = sections(results, speeds)
    if not found:
        raise UserError(NOT_JUDGED)
    tables = [section.table() for section in found]
    compared = [section.comparisons() for section in found]
    write_text(out / "leaderboard.csv", pandas.concat(tables).to_csv(index=False))
    write_text(out / "comparisons.csv", pandas.concat(compared).to_csv(index=False))
    shown = [(section.title, readable(table)) for section, table in zip(found, tables, strict=True)]
    matrices = [(s.title, matrix(pairs)) for s, pairs in zip(found, compared, strict=True) if len(pairs)]
    notes = [*_notes(found), *results.notes]
    parts = [
        f"Built by `{command}`\n",
        *(f"**{title}**\n\n{markdown(table)}" for title, table in shown),
        "  \n".join([*READING, *notes]) + "\n",
        f"Who is closer to the plain model. {MATRIX_READING}\n",
        *(f"**{title}**\n\n{markdown(table)}" for title, table in matrices),
    ]
    write_text(out / "leaderboard.md", "\n".join(parts))
    at_memory = memory.sections(results)
    if len(settings := memory.settings(results)):
        matrices += _write_memory(settings, at_memory, out, command)
        shown += [
            (f"{model}: every setting by its memory", memory.readable(rows))
            for model, rows in settings.groupby("model", sort=False)
        ]
        shown += [(section.title, memory.readable_at(section)) for section in at_memory]
    figures = list(_fronts([*found, *at_memory]))
    for name, _, figure in figures:
        write_figure(name, figure, out)
    environment = Environment(loader=PackageLoader("lazybench.report", "templates"), autoescape=True)
    page = environment.get_template("leaderboard.html").render(
        command=command,
        notes=notes,
        figures=[(name, caption, inline(figure)) for name, caption, figure in figures],
        tables=shown,
        reading=(*READING, memory.READING) if len(settings) else READING,
        matrices=matrices,
        matrix_reading=MATRIX_READING,
    )
    write_text(out / "leaderboard.html", page)


def _write_memory(
    settings: pandas.DataFrame, found: Sequence[Section], out: Path, command: str
) -> list[tuple[str, pandas.DataFrame]]:
    """memory.csv: every setting by its memory; memory.md: the methods at equal memory too. Gives the matrices."""
    write_text(out / "memory.csv", settings.to_csv(index=False))
    compared = [(section.title, section.comparisons()) for section in found]
    matrices = [(title, matrix(pairs)) for title, pairs in compared if len(pairs)]
    parts = [
        f"Built by `{command}`\n",
        *(
            f"**{model}: every setting by its memory**\n\n{markdown(memory.readable(rows))}"
            for model, rows in settings.groupby("model", sort=False)
        ),
        f"{memory.READING} {READING[2]}\n",
        *(f"**{section.title}**\n\n{markdown(memory.readable_at(section))}" for section in found),
        *([f"Who is closer to the plain model. {MATRIX_READING}\n"] if matrices else []),
        *(f"**{title}**\n\n{markdown(table)}" for title, table in matrices),
    ]
    write_text(out / "memory.md", "\n".join(parts))
    return matrices


def _fronts(found: Sequence[Section]) -> Iterator[tuple[str, str, Figure]]:
    """One figure for each model and each kind of speed."""
    models = {section.model for section in found}
    for section in {(section.model, section.matched, section.timed): section for section in found}.values():
        name = "front" + {TTFT: "_ttft", memory.MEMORY: "_memory"}.get(section.matched, "")
        told_apart = [section.model] if len(models) > 1 else []
        name += "".join(f"_{file_name(part)}" for part in (*told_apart, section.timed) if part)
        across = f"{section.matched}, {section.timed}" if section.timed else section.matched
        yield name, front.CAPTION, front.draw(section.curves, section.names, section.model, across)


def _notes(found: Sequence[Section]) -> list[str]:
    """What must be said in words: rows that are empty, rows on different samples."""
    notes = []
    for section in found:
        table = section.table()
        empty = [f"{row.method} ({row.slowest:.2f}x to {row.fastest:.2f}x)" for row in table.itertuples() if not row.n]
        if empty:
            notes.append(f"{section.title} there is no number, nothing being extrapolated, for {', '.join(empty)}.")
        counts = sorted({int(n) for n in table["n"] if n})
        if len(counts) > 1:
            notes.append(
                f"{section.title} the methods stand on {counts[0]} to {counts[-1]} samples: compare them in the "
                "matrix, which pairs."
            )
    if len({section.timed for section in found if section.timed}) > 1:
        notes.append(f"Runs of several kinds timed these settings: a {TTFT} is of the one that the title names.")
    if not any(section.matched == TTFT for section in found):
        notes.append(
            f"No run timed these settings at these lengths: matched by {FLOPS} alone, which bounds no speedup."
        )
    return notes + list(_settings(found))


def _settings(found: Sequence[Section]) -> Iterator[str]:
    """What each curve runs through: a speed between two settings that differ in depth is reached by neither's depth."""
    for section in {section.model: section for section in found if section.matched == FLOPS}.values():
        curves = "; ".join(
            f"{name} {', '.join(map('{} ({:.2f}x)'.format, curve.labels, curve.speeds))}"
            for name, curve in zip(section.names, section.curves, strict=True)
        )
        yield f"Settings of {section.model} by FLOPs ratio: {curves}."
