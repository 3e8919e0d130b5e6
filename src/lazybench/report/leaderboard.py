"""``python -m lazybench leaderboard FOLDER...``: methods at matched FLOPs ratios and memory, each against the closest.

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
from pathlib import Path

import pandas

from lazybench.errors import Parser, UserError, command
from lazybench.methods import title
from lazybench.report import tables
from lazybench.report.curves import FLOPS, MEMORY, Curve, against, curve_names, curves_of, judged, numbers
from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import CAPTION, settings_figure
from lazybench.report.results import Results, read_options
from lazybench.report.statistics import divergence
from lazybench.report.text import markdown, rounded, settings_label, write_html
from lazybench.run.files import write_atomically

IN_WORDS = {FLOPS: "FLOPs ratio", MEMORY: "memory ratio"}
MATCHED = {FLOPS: (1.5, 2.0, 3.0), MEMORY: (1.25, 1.5, 2.0, 4.0)}
COLUMNS = {  # of a table for people: heading to a column, its digits and factor, and digits of its bounds
    "FLOPs ratio": ("flops_ratio", 2, 1.0, 2),
    "KL nats": ("kl", 3, 1.0, 3),
    "over the closest": ("over_closest", 2, 1.0, 2),
    "first": ("kl_first", 3, 1.0, 3),
    "later": ("kl_later", 3, 1.0, 3),
    "same token %": ("same_token", 0, 100.0, 0),
    "relative score %": ("relative_score", 0, 100.0, 0),
    "TTFT speedup": ("ttft_speedup", 2, 1.0, 2),
    "decoding step x": ("decode_step_ratio", 2, 1.0, 2),
    "memory %": ("memory", 0, 100.0, 0),
    "KV %": ("kv_ratio", 0, 100.0, 0),
    "Aux %": ("aux_ratio", 0, 100.0, 0),
    "measured from": ("lowest", 2, 1.0, 2),
    "to": ("highest", 2, 1.0, 2),
}
READING = {  # by the column that it explains
    **tables.READING,
    "KL nats": "KL nats: divergence of the next-token distribution from the plain model's, geometric mean over "
    "samples; first: of the first token, which the prefill alone decides; later: of the others.",
    "over the closest": "Over the closest: the row's KL over the first row's, on the samples of both, geometric mean; "
    "not told apart where the interval holds 1.",
    "fixed": "Fixed: what the settings of a row have in common.",
    "memory %": "Memory %: bytes of KV cache and Aux Cache at the end, of the plain model's KV cache; memory ratio: "
    "its inverse.",
    "measured from": "Each method at this ratio on its own curve, between two of its settings that are neighbours: "
    "linear in the logarithm of the ratio; a setting within 4% of it stands for it where that has more samples. Blank: "
    "neither such a one, nor two that bracket this ratio (last column) of which none leaves most prompts whole.",
}


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
    def samples(self) -> list[pandas.DataFrame]:
        """Of each curve: its quantities at this ratio, one row a sample."""
        return [curve.at(self.ratio) for curve in self.curves]

    def table(self) -> pandas.DataFrame:
        """Numbers, one row a method, the closest to the plain model first, those without any last."""
        names = curve_names(curve.name for curve in self.curves).values()
        closest_first = sorted(
            zip(names, self.curves, self.samples, strict=True),
            key=lambda row: math.inf if math.isnan(kl := divergence(row[2]["fidelity_kl"]).value) else kl,
        )
        closest = closest_first[0][2]
        rows = [
            {
                "method": name,
                "fixed": "" if curve.name[1] in name else curve.name[1],  # what the name does not say already
                "lowest": curve.ratios[0],
                "highest": curve.ratios[-1],
                **numbers(samples),
                **({} if samples is closest else against(samples, closest).columns("over_closest")),
            }
            for name, curve, samples in closest_first
        ]
        return pandas.DataFrame(rows)


def sections(results: Results) -> list[Section]:
    """Each model's methods at each FLOPs ratio, and at each memory ratio that a method reaches."""
    found = []
    for model, settings in judged(results.samples):
        for matched, ratios in MATCHED.items():
            at = [Section(model, matched, ratio, curves_of(settings, matched)) for ratio in ratios]
            found += [one for one in at if (matched == FLOPS and one.curves) or any(map(len, one.samples))]
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
    words = {name: list(table[name]) for name in ("method", "settings", "fixed") if name in table and any(table[name])}
    counts = [str(n) if n else "" for n in table["n"]]
    return pandas.DataFrame({**words, **rounded(table, COLUMNS), "n": counts})


def write_leaderboard(results: Results, out: Path, command: str) -> None:
    """Write leaderboard.md, leaderboard.html and front.png.

    Raises:
        UserError: no record has a divergence.
    """
    found = sections(results)
    if not found:
        measure = "measure it as in lazybench 'methods=[baseline,taper,fastkv]' timing=false"
        raise UserError(f"no record has a KL divergence from the plain model; {measure}")
    settings, numbered = measured_settings(results), [section.table() for section in found]
    # rows without a number are told of in words
    shown = [
        (section.title, readable(table if section.matched != MEMORY else table[table["n"] > 0]))
        for section, table in zip(found, numbered, strict=True)
        if table["n"].any()
    ]
    shown += [(f"{model}: every setting", readable(rows)) for model, rows in settings.groupby("model", sort=False)]
    columns = {name for _, table in shown for name in table}
    reading = [told for name, told in READING.items() if name in columns]
    empty = [section.title for section, table in zip(found, numbered, strict=True) if not table["n"].any()]
    no_number = "there is no number: no two measured settings of a method bracket it."
    built, notes = f"Built by `{command}`", [*reading, *(f"{title} {no_number}" for title in empty), *results.notes]
    text = [
        f"{built}\n",
        *(f"**{title}**\n\n{markdown(table)}" for title, table in shown),
        "  \n".join(notes) + "\n",
    ]
    write_atomically(out / "leaderboard.md", "\n".join(text).encode())
    save(settings_figure(settings), out / "front.png")
    page = {"tables": shown, "notes": [*notes, built]}
    write_html(out / "leaderboard.html", title="Leaderboard", figures=[("front", CAPTION)], **page)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, results = read_options(Parser("python -m lazybench leaderboard", __doc__), given, "leaderboard")
    write_leaderboard(results, options.out, f"python -m lazybench leaderboard {shlex.join(given)}")
    print((options.out / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"table and figure: {options.out}")
    return 0
