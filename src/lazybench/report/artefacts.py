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
from lazybench.report.results import WHERE, Results
from lazybench.report.summary import timed, with_setting

CAPTIONS = {
    "table1": "Table 1: score and TTFT speedup (x), ours beside the paper's",
    "table2": "Table 2: prompt tokens computed (%) and overall generation speedup (x) of LazyLLM",
    "fig1": "Figure 1: share of prefill and decoding in the generation time",
    "fig2": "Figure 2: attention of the prompt's tokens with respect to the next token",
    "fig5": "Figure 5: quality over TTFT speedup",
    "fig6": "Figure 6: one pruning layer",
    "fig7": "Figure 7: prompt tokens computed over the generation steps",
}


def build_tables(results: Results, wanted: Sequence[str]) -> dict[str, tuple[str, pandas.DataFrame]]:
    """Name to caption and table, for those that the results allow."""
    found, summary = {}, results.summary
    if "table1" in wanted and (timed(summary) or "score" in summary):
        found["table1"] = tables.table1(summary)
    if "table2" in wanted and timed(summary):
        found["table2"] = tables.table2(summary)
    return {name: (CAPTIONS[name], table) for name, table in found.items()}


def build_figures(results: Results, wanted: Sequence[str]) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure, for those that the results allow."""
    summary = with_setting(results.summary)
    quality = tradeoff.quality_of(summary)
    judged = len(summary) and summary[quality].notna().any()
    drawn: list[tuple[str, Figure]] = []
    if "fig1" in wanted and len(fig1.shares(results.samples)):
        drawn.append(("fig1", fig1.draw(results.samples)))
    for path in results.attention if "fig2" in wanted else ():
        name = "fig2" if len(results.attention) == 1 else f"fig2_{path.parent.name}"
        drawn.append((name, fig2.draw(*fig2.read_attention(path))))
    if "fig5" in wanted and judged and timed(summary):
        drawn.append(("fig5", tradeoff.figure5(summary)))
    if "fig6" in wanted and judged:
        name = quality.removeprefix("relative_")
        rows = fig6.one_layer_rows(summary, results.layers, name)
        if rows["layer"].notna().any():
            drawn.append(("fig6", fig6.draw(rows, results.layers, name)))
    if "fig7" in wanted and (figure := fig7.draw(results.labelled, results.layers)).axes:
        drawn.append(("fig7", figure))
    yield from ((name, CAPTIONS[name[:4]], figure) for name, figure in drawn)


def add_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """What the report and the leaderboard both take."""
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="runs or campaigns, at any depth")
    parser.add_argument(
        "--out",
        type=path_of,
        help=f"where to write; default: {folder}/ in the first folder, results/{folder}/ for a campaign's files",
    )
    parser.add_argument("--where", action="append", default=[], metavar="CONDITION", help=WHERE)


def made(out: Path | None, folders: Sequence[Path], name: str) -> Path:
    """The folder to write into, made: what ``--out`` names, else one in the first folder; campaigns' files are left
    alone, and theirs is in results/ here.

    Raises:
        UserError: it can't be made.
    """
    packed = folders[0].is_file() or any(folders[0].glob("*.parquet"))
    out = out or (Path("results") if packed else folders[0]) / name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}") from error
    return out
