"""Each table and figure by its name: what is drawn from the results, and written where."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
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
from lazybench.report.statistics import LEAST_SAMPLES
from lazybench.report.text import markdown
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
TRADEOFF = "A point is a setting, a line joins a method's. KL divergence: geometric mean over samples, lower is closer."
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
        yield from _by_quality("fig6", summary, lambda column: fig6.draw(summary, results.layers, column))
    if "fig7" in wanted and (figure := fig7.draw(results.labelled, results.layers)).axes:
        yield "fig7", CAPTIONS["fig7"], figure
    for name, _, rows in _by_model("fig5", summary) if "fig5" in wanted and timed(summary) else ():
        yield from _by_quality(name, rows, lambda column, rows=rows: tradeoff.draw(rows, column))  # type: ignore[misc]


def tradeoffs(settings: pandas.DataFrame, name: str = "tradeoff", across: str | None = None) -> Iterator[Drawn]:
    """Quality over speed for each model that was judged on at least ten samples; see ``settings_figure``."""
    for file, model, rows in _by_model(name, settings):
        if rows["n"].max() >= LEAST_SAMPLES and (across is None or rows[across].notna().any()):
            yield file, f"{model}. {TRADEOFF}", tradeoff.settings_figure(rows, across)


def _by_model(name: str, rows: pandas.DataFrame) -> list[tuple[str, str, pandas.DataFrame]]:
    """Each model's rows, with its name behind the file's where there are several."""
    models = [(str(model), of) for model, of in rows.groupby("model", sort=False)] if len(rows) else []
    return [(f"{name}_{file_name(model)}" if len(models) > 1 else name, model, of) for model, of in models]


def _by_quality(name: str, rows: pandas.DataFrame, draw: Callable[[str], Figure]) -> Iterator[Drawn]:
    """A figure for each quality that was measured, ``fidelity`` behind the second one's name."""
    for place, column in enumerate(tradeoff.qualities(rows)):
        yield name + ("_fidelity" if place else ""), CAPTIONS[name[:4]], draw(column)


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
    """Markdown, CSV and LaTeX (for the ``booktabs`` package), as asked."""
    if "md" in formats:
        write_atomically(out / f"{name}.md", f"{caption}. Paper: {TITLE}\n\n{markdown(table)}".encode())
    if "csv" in formats:
        write_atomically(out / f"{name}.csv", table.to_csv(index=False).encode())
    if "tex" in formats:
        styler = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        caption = caption.replace("%", r"\%")
        write_atomically(
            out / f"{name}.tex", styler.to_latex(hrules=True, caption=caption, label=f"tab:{name}").encode()
        )


def write_figures(figures: Sequence[Drawn], out: Path, formats: Sequence[str]) -> list[tuple[str, str]]:
    """PNG always, for the page, and PDF where asked; gives each one's name and caption."""
    for name, _, figure in figures:
        for kind in {"png", *({"pdf"} & set(formats))}:
            save(figure, out / f"{name}.{kind}")
    return [(name, caption) for name, caption, _ in figures]


def file_name(text: str) -> str:
    """Safe in a file name."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in text)
