"""``python -m lazybench leaderboard FOLDER...``: methods at matched FLOPs ratios and memory, and pairwise comparisons.

Writes leaderboard.md, and front.png with a panel for each model.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas

from lazybench.errors import UserError, command
from lazybench.report.artefacts import add_options, made
from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import settings_figure
from lazybench.report.leaderboard import MEMORY, Section, measured_settings, readable, sections
from lazybench.report.results import Results, load
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.text import markdown
from lazybench.run.files import write_atomically

READING = (
    "KL nats: divergence of the next-token distribution from the plain model's, geometric mean over samples; first: of "
    "the first token, which the prefill alone decides; later: of the others.",
    "Fixed: what the settings of a row have in common. Same token %: of the plain model's tokens. Decoding step x: "
    "method over plain model. FLOPs ratio: FLOPs of the plain prefill over the method's. TTFT speedup: of the "
    "same samples, where they were timed.",
    "Memory %: bytes of KV cache and Aux Cache at the end, of the plain model's KV cache; memory ratio: its inverse.",
    f"[brackets]: 95% interval, from {LEAST_SAMPLES} samples on.",
    "Each method at this ratio on its own curve, between two of its settings that are neighbours: linear in the "
    "logarithm of the ratio; a setting within 4% of it stands for it. Blank: neither such a one, nor two that bracket "
    "this ratio (last column) of which none leaves most prompts whole.",
)
MATRIX_READING = (
    "Row over column: the ratio of their KL divergences on the same samples, geometric mean. +: the row is closer to "
    "the plain model, -: further (the 95% interval leaves out 1); ++ and --: the sign test says so too, corrected for "
    "the number of pairs (Holm). No mark: undecided."
)


def write_leaderboard(results: Results, out: Path, command: str, speeds: Sequence[float] | None = None) -> None:
    """Write leaderboard.md and front.png.

    Raises:
        UserError: no record has a divergence.
    """
    found = sections(results, speeds)
    if not found:
        raise UserError(
            "no record has a KL divergence from the plain model; run with fidelity=true, or experiment=quality"
        )
    settings, tables = measured_settings(results), [section.table() for section in found]
    # rows without a number are told of in words
    shown = [
        (section.title, readable(table if section.matched != MEMORY else table[table["n"] > 0]))
        for section, table in zip(found, tables, strict=True)
        if table["n"].any()
    ]
    shown += [(f"{model}: every setting", readable(rows)) for model, rows in settings.groupby("model", sort=False)]
    matrices = [(section.title, pairs) for section in found if len(pairs := section.matrix())]
    text = [
        f"Built by `{command}`\n",
        *(f"**{title}**\n\n{markdown(table)}" for title, table in shown),
        "  \n".join([*READING, *_notes(found, tables), *results.notes]) + "\n",
        *([f"Pairwise comparisons. {MATRIX_READING}\n"] if matrices else []),
        *(f"**{title}**\n\n{markdown(table)}" for title, table in matrices),
    ]
    write_atomically(out / "leaderboard.md", "\n".join(text).encode())
    save(settings_figure(settings), out / "front.png")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m lazybench leaderboard", description=__doc__)
    add_options(parser, "leaderboard")
    parser.add_argument("--speeds", default="1.5,2,3", help="FLOPs ratios to match; default: 1.5,2,3")
    options = parser.parse_args(given)
    results = load(options.folders, options.where, options.exclude)
    out = made(options.out, options.folders, "leaderboard")
    write_leaderboard(results, out, f"python -m lazybench leaderboard {shlex.join(given)}", _ratios(options.speeds))
    print((out / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"table and figure: {out}")
    return 0


def _ratios(text: str) -> list[float]:
    try:
        found = sorted(float(part) for part in text.split(","))
    except ValueError:
        found = [0.0]
    if not 0 < found[0] < math.inf:
        raise UserError(f"--speeds {text} must be numbers above 0, as in 1.5,2,3")
    return found


def _notes(found: Sequence[Section], tables: Sequence[pandas.DataFrame]) -> list[str]:
    """What must be said in words: ratios that are empty, rows on different samples."""
    notes = []
    for section, table in zip(found, tables, strict=True):
        counts = sorted({int(n) for n in table["n"] if n})
        if not counts:
            notes.append(f"{section.title} there is no number: no two measured settings of a method bracket it.")
        elif counts[0] != counts[-1]:
            notes.append(
                f"{section.title} the methods stand on {counts[0]} to {counts[-1]} samples: compare them in pairs."
            )
    return notes


if __name__ == "__main__":
    sys.exit(main())
