"""``python -m lazybench leaderboard FOLDER...``: methods at matched FLOPs ratios and memory, and pairwise comparisons.

Writes leaderboard.md, leaderboard.html, and front.png with a panel for each model. Every sample weighs the same in
divergences and in comparisons; in scores and shares every task does, as in summaries.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import pandas

from lazybench.errors import Parser, UserError, command
from lazybench.methods import title
from lazybench.report import statistics, tables
from lazybench.report.artefacts import add_options, made
from lazybench.report.curves import FLOPS, MEMORY, Curve, against, curve_names, curves_of, judged, numbers
from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import settings_figure
from lazybench.report.html import write_html
from lazybench.report.results import Results, load
from lazybench.report.statistics import CONFIDENCE, Estimate
from lazybench.report.text import formatted, markdown, number, settings_label
from lazybench.run.files import write_atomically

IN_WORDS = {FLOPS: "FLOPs ratio", MEMORY: "memory ratio"}
MATCHED = {FLOPS: (1.5, 2.0, 3.0), MEMORY: (1.25, 1.5, 2.0, 4.0)}
COLUMNS = {  # of a table for people: heading, digits and factor
    "flops_ratio": ("FLOPs ratio", 2, 1.0),
    "kl": ("KL nats", 3, 1.0),
    "kl_first": ("first", 3, 1.0),
    "kl_later": ("later", 3, 1.0),
    "same_token": ("same token %", 0, 100.0),
    "relative_score": ("relative score %", 0, 100.0),
    "ttft_speedup": ("TTFT speedup", 2, 1.0),
    "decode_step_ratio": ("decoding step x", 2, 1.0),
    "memory": ("memory %", 0, 100.0),
    "kv_ratio": ("KV %", 0, 100.0),
    "aux_ratio": ("Aux %", 0, 100.0),
    "lowest": ("measured from", 2, 1.0),
    "highest": ("to", 2, 1.0),
}
READING = {  # by the column that it explains
    **tables.READING,
    "KL nats": "KL nats: divergence of the next-token distribution from the plain model's, geometric mean over "
    "samples; first: of the first token, which the prefill alone decides; later: of the others.",
    "fixed": "Fixed: what the settings of a row have in common.",
    "memory %": "Memory %: bytes of KV cache and Aux Cache at the end, of the plain model's KV cache; memory ratio: "
    "its inverse.",
    "measured from": "Each method at this ratio on its own curve, between two of its settings that are neighbours: "
    "linear in the logarithm of the ratio; a setting within 4% of it stands for it where that has more samples. Blank: "
    "neither such a one, nor two that bracket this ratio (last column) of which none leaves most prompts whole.",
}
FRONT = "Every setting: a point is a setting, a line joins a method's."
MATRIX_READING = (
    "Row over column: the ratio of their KL divergences on the same samples, geometric mean. +: the row is closer to "
    "the plain model, -: further (the 95% interval leaves out 1); ++ and --: the sign test says so too, corrected for "
    "the number of pairs (Holm). No mark: undecided."
)


@dataclass(frozen=True)
class Section:
    """One model's methods at one ratio."""

    model: str
    matched: str  # FLOPS or MEMORY
    ratio: float
    curves: Sequence[Curve]

    @property
    def title(self) -> str:
        """``smollm2 at a FLOPs ratio of 2x``"""
        return f"{self.model} at a {IN_WORDS[self.matched]} of {self.ratio:g}x"

    @cached_property
    def names(self) -> list[str]:
        """Of each curve: the method's, with what tells it from another curve of the same method."""
        return list(curve_names(curve.name for curve in self.curves).values())

    @cached_property
    def samples(self) -> list[pandas.DataFrame]:
        """Of each curve: its quantities at this ratio, one row a sample."""
        return [curve.at(self.ratio) for curve in self.curves]

    def table(self) -> pandas.DataFrame:
        """Numbers, one row a method, the closest to the plain model first, those without any last."""
        rows = [
            {
                "method": name,
                "family": curve.name[1],
                "lowest": curve.ratios[0],
                "highest": curve.ratios[-1],
                **numbers(samples),
            }
            for name, curve, samples in zip(self.names, self.curves, self.samples, strict=True)
        ]
        return pandas.DataFrame(rows).sort_values("kl", na_position="last", kind="stable", ignore_index=True)

    def matrix(self) -> pandas.DataFrame:
        """Row against column, of every two methods on the samples that both have: the geometric mean of the ratio of
        their divergences, and who is closer to the plain model, as ``MATRIX_READING`` says.
        """
        there = [place for place, samples in enumerate(self.samples) if len(samples)]
        pairs = list(combinations(there, 2))
        found = [against(self.samples[first], self.samples[second]) for first, second in pairs]
        corrected = statistics.holm([one.p_sign for one in found])
        cells: dict[tuple[int, int], str] = {}
        for (first, second), one, p_holm in zip(pairs, found, corrected, strict=True):
            ratio, marks = one.estimate, 1 + (p_holm < 1 - CONFIDENCE)
            inverse = Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
            for pair, kl in (((first, second), ratio), ((second, first), inverse)):
                result = "" if not kl.excludes(1) else "+" if kl.high < 1 else "-"
                cells[pair] = f"{number(kl.value, 2)} {result * marks}".strip()
        names = [self.names[place] for place in there]
        columns = {self.names[of]: [cells.get((place, of), "") for place in there] for of in there}
        return pandas.DataFrame({"method": names, **columns}) if pairs else pandas.DataFrame()


def sections(results: Results, ratios: Sequence[float] | None = None) -> list[Section]:
    """Each model's methods at each FLOPs ratio, and at each memory ratio that a method reaches.

    Args:
        ratios: FLOPs ratios; None: those of ``MATCHED``.
    """
    found = []
    for model, settings in judged(results.samples):
        for matched, usual in MATCHED.items():
            if curves := curves_of(settings, matched):
                wanted = ratios if ratios and matched == FLOPS else usual
                at = [Section(model, matched, ratio, curves) for ratio in wanted]
                found += [one for one in at if matched == FLOPS or any(map(len, one.samples))]
    return found


def measured_settings(results: Results) -> pandas.DataFrame:
    """Every setting that was judged, by model and rising FLOPs ratio: what it saves, what it holds, what it loses."""
    rows = [
        {
            "model": model,
            "method_name": one.method,
            "params": one.params,
            "family": one.family,
            "method": title(one.method),
            "settings": settings_label(one.method, one.params),
            "flops_ratio": one.flops_ratio,
            "memory_ratio": one.memory_ratio,
            "memory": 1 / one.memory_ratio,
            **numbers(one.samples),
        }
        for model, settings in judged(results.samples)
        for one in settings
    ]
    table = pandas.DataFrame(rows)
    return table.sort_values(["model", "flops_ratio"], kind="stable", ignore_index=True) if rows else table


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """A section's table, or ``measured_settings``, as rounded text; columns that nothing fills are left out."""
    names = list(table["method"])
    columns = {"method": names}
    if "flops_ratio" in table:
        columns["settings"] = list(table["settings"])
    else:  # what the name does not say already
        columns["fixed"] = ["" if f in n else f for n, f in zip(names, table["family"], strict=True)]
    for name, (heading, digits, factor) in COLUMNS.items():
        columns[heading] = formatted(table, name, digits, factor) if name in table else []
    columns["n"] = [str(n) if n else "" for n in table["n"]]
    return pandas.DataFrame({name: cells for name, cells in columns.items() if any(cells)})


def write_leaderboard(results: Results, out: Path, command: str, speeds: Sequence[float] | None = None) -> None:
    """Write leaderboard.md, leaderboard.html and front.png.

    Raises:
        UserError: no record has a divergence.
    """
    found = sections(results, speeds)
    if not found:
        raise UserError(
            "no record has a KL divergence from the plain model; measure it with fidelity=true, without a clock as in "
            "lazybench 'methods=[baseline,taper,fastkv]' timing=false"
        )
    settings, numbered = measured_settings(results), [section.table() for section in found]
    # rows without a number are told of in words
    shown = [
        (section.title, readable(table if section.matched != MEMORY else table[table["n"] > 0]))
        for section, table in zip(found, numbered, strict=True)
        if table["n"].any()
    ]
    shown += [(f"{model}: every setting", readable(rows)) for model, rows in settings.groupby("model", sort=False)]
    matrices = [(section.title, pairs) for section in found if len(pairs := section.matrix())]
    columns = {name for _, table in shown for name in table}
    reading = [told for name, told in READING.items() if name in columns]
    built, notes = f"Built by `{command}`", [*reading, *_notes(found, numbered), *results.notes]
    text = [
        f"{built}\n",
        *(f"**{title}**\n\n{markdown(table)}" for title, table in shown),
        "  \n".join(notes) + "\n",
        *([f"Pairwise comparisons. {MATRIX_READING}\n"] if matrices else []),
        *(f"**{title}**\n\n{markdown(table)}" for title, table in matrices),
    ]
    write_atomically(out / "leaderboard.md", "\n".join(text).encode())
    save(settings_figure(settings), out / "front.png")
    page = {"tables": shown, "notes": [*notes, built], "pairs": matrices, "how_pairs_read": MATRIX_READING}
    write_html(out / "leaderboard.html", title="Leaderboard", figures=[("front", FRONT)], **page)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("python -m lazybench leaderboard", __doc__)
    add_options(parser, "leaderboard")
    parser.add_argument("--speeds", default="1.5,2,3", help="FLOPs ratios to match; default: 1.5,2,3")
    options = parser.parse_args(given)
    results = load(options.folders, options.where)
    out = made(options.out, options.folders, "leaderboard")
    # a condition with quotes inside stands in the other quotes
    words = [f'"{word}"' if "'" in word and '"' not in word else shlex.quote(word) for word in given]
    write_leaderboard(results, out, f"python -m lazybench leaderboard {' '.join(words)}", _ratios(options.speeds))
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
    notes: list[str] = []
    empty: dict[str, list[str]] = {}
    for section, table in zip(found, tables, strict=True):
        counts = sorted({int(n) for n in table["n"] if n})
        if not counts:
            empty.setdefault(f"{section.model} at a {IN_WORDS[section.matched]} of", []).append(f"{section.ratio:g}x")
        elif counts[0] != counts[-1]:
            notes.append(
                f"{section.title} the methods stand on {counts[0]} to {counts[-1]} samples: compare them in pairs."
            )
    no_number = "there is no number: no two measured settings of a method bracket it."
    return [*(f"{where} {', '.join(ratios)} {no_number}" for where, ratios in empty.items()), *notes]
