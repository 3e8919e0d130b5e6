"""Each table and figure of the paper by its name: what is drawn from the results, and written where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
from matplotlib.figure import Figure

from lazybench.report import tables, write_text
from lazybench.report.figures import fig1, fig2, fig5, fig6, fig7, gpu
from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import qualities
from lazybench.report.names import with_settings_in_model
from lazybench.report.paper import TITLE
from lazybench.report.results import Results
from lazybench.report.statistics import LEAST_SAMPLES

TABLES: dict[str, tuple[Callable[[pandas.DataFrame], pandas.DataFrame], str]] = {
    "table1": (tables.table1, "Table 1: score and TTFT speedup (x), ours beside the paper's"),
    "table2": (tables.table2, "Table 2: prompt tokens computed (%) and overall generation speedup (x) of LazyLLM"),
}
FIGURES = {
    "fig1": "Figure 1: share of prefill and decoding in the generation time",
    "fig2": "Figure 2: attention of the prompt's tokens with respect to the next token",
    "fig5": "Figure 5: quality over TTFT speedup",
    "fig6": "Figure 6: one pruning layer",
    "fig7": "Figure 7: prompt tokens computed over the generation steps",
}
GPU = "On the device: times, memory, and what a forward pass launches; random weights, see `revival.like`"
NAMES = (*TABLES, *FIGURES, "gpu")


def build_tables(results: Results, wanted: tuple[str, ...]) -> dict[str, tuple[str, pandas.DataFrame]]:
    """Name to caption and table, for those that the results allow."""
    if results.summary.empty:
        return {}
    allowed = {
        "table1": tables.timed(results.summary) or "score" in results.summary,
        "table2": tables.timed(results.summary),
    }
    built = {
        name: (caption, build(results.summary))
        for name, (build, caption) in TABLES.items()
        if name in wanted and allowed[name]
    }
    if "gpu" in wanted and len(rows := gpu.rows(results.records)):
        built["gpu"] = GPU, gpu.table(rows)
    return built


def build_figures(results: Results, wanted: tuple[str, ...]) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure, for those that the results allow."""
    summary = with_settings_in_model(results.summary)
    timed = not summary.empty and tables.timed(summary)
    if timed and "fig1" in wanted and len(fig1.shares(results.samples)):
        yield "fig1", FIGURES["fig1"], fig1.draw(results.samples)
    for path in results.attention if "fig2" in wanted else ():
        name = "fig2" if len(results.attention) == 1 else f"fig2_{path.parent.name}"
        yield name, FIGURES["fig2"], fig2.draw(fig2.read_attention(path), fig2.title_of(path))
    has_layers = "fig6" in wanted and not summary.empty and bool(_qualities(summary))
    if has_layers and fig6.one_layer_rows(summary, results.layers)["depth"].notna().any():
        for suffix, told, column in _qualities(summary):
            yield f"fig6{suffix}", FIGURES["fig6"] + told, fig6.draw(summary, results.layers, column)
    if "fig7" in wanted:
        figure = fig7.draw([record for records in results.records for record in records], results.layers)
        if figure.axes:
            yield "fig7", FIGURES["fig7"], figure
    if not timed:
        return
    if "fig5" in wanted:
        models = list(dict.fromkeys(summary["model"]))
        for model in models:
            name = "fig5" if len(models) == 1 else f"fig5_{file_name(model)}"
            for suffix, told, column in _qualities(summary[summary["model"] == model]):
                yield name + suffix, f"{FIGURES['fig5']}, {model}{told}", fig5.draw(summary, model, column)
    if "gpu" in wanted and len(rows := gpu.rows(results.records)):
        yield "gpu", GPU, gpu.draw(rows)


def _qualities(summary: pandas.DataFrame) -> list[tuple[str, str, str]]:
    """File name's end, caption's end and column of each quality that was measured: few samples are told apart by
    fidelity alone. Times alone have none.
    """
    least = summary["n"].min()
    few = f" (from n={least} on: too few for scores)" if least < LEAST_SAMPLES else ""
    suffixes = {"relative_score": ("", few), "fidelity_top1": ("_fidelity", ", fidelity for quality")}
    found = [(*suffixes[column], column) for column in qualities(summary)]
    return [("", told, column) for _, told, column in found[:1]] + found[1:]


def write_table(name: str, caption: str, table: pandas.DataFrame, out: Path) -> None:
    """Markdown, CSV and LaTeX."""
    write_text(out / f"{name}.md", f"{caption}. Paper: {TITLE}\n\n{tables.markdown(table)}")
    write_text(out / f"{name}.csv", table.to_csv(index=False))
    write_text(out / f"{name}.tex", tables.latex(table, caption, f"tab:{name}"))


def write_figure(name: str, figure: Figure, out: Path) -> None:
    """PNG and PDF."""
    for kind in ("png", "pdf"):
        save(figure, out / f"{name}.{kind}")


def file_name(text: str) -> str:
    """Safe in a file name."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in text)
