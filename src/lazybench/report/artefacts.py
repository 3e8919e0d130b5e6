"""Each table and figure of the paper by its name: what is drawn from the results, and written where."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas
from matplotlib.figure import Figure

from lazybench.errors import UserError
from lazybench.pruning.settings import path_of
from lazybench.report import tables
from lazybench.report.figures import fig1, fig2, fig6, fig7, tradeoff
from lazybench.report.figures.style import save
from lazybench.report.names import timed, with_setting
from lazybench.report.paper import TITLE
from lazybench.report.results import WHERE, Results
from lazybench.run.files import write_atomically

CAPTIONS = {
    "table1": "Table 1: score and TTFT speedup (x), ours beside the paper's",
    "table2": "Table 2: prompt tokens computed (%) and overall generation speedup (x) of LazyLLM",
    "fig1": "Figure 1: share of prefill and decoding in the generation time",
    "fig2": "Figure 2: attention of the prompt's tokens with respect to the next token",
    "fig5": "Figure 5: quality over TTFT speedup",
    "fig6": "Figure 6: one pruning layer",
    "fig7": "Figure 7: prompt tokens computed over the generation steps",
}
FORMATS = ("md", "png", "csv", "tex", "pdf")
Drawn = tuple[str, str, Figure]  # file name, caption, figure


def build_tables(results: Results, wanted: Sequence[str]) -> dict[str, tuple[str, pandas.DataFrame]]:
    """Name to caption and table, for those that the results allow."""
    found, summary = {}, results.summary
    if "table1" in wanted and (timed(summary) or "score" in summary):
        found["table1"] = tables.table1(summary)
    if "table2" in wanted and timed(summary):
        found["table2"] = tables.table2(summary)
    return {name: (CAPTIONS[name], table) for name, table in found.items()}


def build_figures(results: Results, wanted: Sequence[str]) -> Iterator[Drawn]:
    """Those that the results allow: figures 5 and 6 for each quality that was measured, figure 5 for each model."""
    summary = with_setting(results.summary)
    if "fig1" in wanted and len(fig1.shares(results.samples)):
        yield "fig1", CAPTIONS["fig1"], fig1.draw(results.samples)
    for path in results.attention if "fig2" in wanted else ():
        name = "fig2" if len(results.attention) == 1 else f"fig2_{path.parent.name}"
        yield name, CAPTIONS["fig2"], fig2.draw(*fig2.read_attention(path))
    if "fig6" in wanted and fig6.one_layer_rows(summary, results.layers, "fidelity_top1")["layer"].notna().any():
        for suffix, column in _qualities(summary):
            yield f"fig6{suffix}", CAPTIONS["fig6"], fig6.draw(summary, results.layers, column)
    if "fig7" in wanted and (figure := fig7.draw(results.labelled, results.layers)).axes:
        yield "fig7", CAPTIONS["fig7"], figure
    models = list(dict.fromkeys(summary["model"])) if "fig5" in wanted and timed(summary) else []
    for model in models:
        rows, name = summary[summary["model"] == model], f"fig5_{file_name(model)}" if len(models) > 1 else "fig5"
        for suffix, column in _qualities(rows):
            yield name + suffix, f"{CAPTIONS['fig5']}, {model}", tradeoff.draw(rows, column)


def _qualities(summary: pandas.DataFrame) -> list[tuple[str, str]]:
    """Each quality that was measured with its part of a file's name; the first has none."""
    return [("_fidelity" if place else "", name) for place, name in enumerate(tradeoff.qualities(summary))]


def add_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """What the report and the leaderboard both take."""
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="runs or campaigns, at any depth")
    parser.add_argument("--out", type=path_of, help=f"where to write; default: {folder}/ in the first folder")
    parser.add_argument("--where", action="append", default=[], metavar="CONDITION", help=WHERE)
    parser.add_argument("--exclude", type=path_of, action="append", default=[], metavar="FOLDER", help="leave this out")
    parser.add_argument("--by", action="append", default=[], metavar="NAME", help="splits rows too: seed, hardware.cpu")
    parser.add_argument("--formats", default="md,png", help=f"of {','.join(FORMATS)}; default: md,png")


def prepare(out: Path | None, folders: Sequence[Path], name: str, formats: str) -> tuple[Path, tuple[str, ...]]:
    """Make what ``--out`` names, else a folder of that name in the first folder, or beside the first file.

    Raises:
        UserError: it can't be made; a format that there is none of.
    """
    if unknown := set(asked := tuple(formats.split(","))) - set(FORMATS):
        raise UserError(f"--formats {formats}: {', '.join(sorted(unknown))} is none of {', '.join(FORMATS)}")
    out = out or (folders[0] if folders[0].is_dir() else folders[0].parent) / name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
    return out, asked


def write_table(name: str, caption: str, table: pandas.DataFrame, out: Path, formats: Sequence[str]) -> None:
    """Markdown, CSV and LaTeX, as asked."""
    if "md" in formats:
        write_text(out / f"{name}.md", f"{caption}. Paper: {TITLE}\n\n{tables.markdown(table)}")
    if "csv" in formats:
        write_text(out / f"{name}.csv", table.to_csv(index=False))
    if "tex" in formats:
        write_text(out / f"{name}.tex", tables.latex(table, caption, f"tab:{name}"))


def write_figure(name: str, figure: Figure, out: Path, formats: Sequence[str]) -> None:
    """PNG and PDF, as asked."""
    for kind in {"png", "pdf"} & set(formats):
        save(figure, out / f"{name}.{kind}")


def write_text(path: Path, text: str) -> None:
    """Write a file at once or not at all; see ``write_atomically``."""
    write_atomically(path, text.encode("utf-8"))


def file_name(text: str) -> str:
    """Safe in a file name."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in text)
