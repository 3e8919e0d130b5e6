"""Figures 1 and 2: how much of a generation the prefill takes, and how few tokens its attention needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazybench.errors import library_errors
from lazybench.report import paper
from lazybench.report.figures.style import BLUE, GREEN, ORANGE, VERMILION, styled
from lazybench.report.results import Results

MASSES = ((0.5, ORANGE, "-"), (0.9, GREEN, "--"), (0.99, VERMILION, ":"))


@styled()
def figure1(results: Results) -> Figure | None:
    """Of the baseline the share of prefill and decoding, and TTFT over a decoding step; the paper's model below."""
    samples = results.samples
    baseline = samples[(samples["method"] == "baseline") & samples["decode_step_s"].notna()]
    if baseline.empty:
        return None
    groups = baseline.groupby("model", sort=False)
    rows = groups[["prompt_tokens", "output_tokens"]].mean()
    ttft_s, generation_s, step_s = (groups[name].sum() for name in ("ttft_s", "generation_s", "decode_step_s"))
    rows = rows.assign(prefill=100 * ttft_s / generation_s, steps=ttft_s / step_s)
    rows.loc["paper: Llama 2 7B, A100"] = paper.FIGURE_1
    names = [f"{row.Index}\n{row.prompt_tokens:.0f} + {row.output_tokens:.0f} tokens" for row in rows.itertuples()]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    bars = left.barh(names, rows["prefill"], color=BLUE, label="prefill (TTFT)")
    left.bar_label(bars, fmt="{:.0f}%", label_type="center", color="white")
    decoding = {"color": ORANGE, "hatch": "//", "edgecolor": "white", "label": "decoding"}
    left.barh(names, 100 - rows["prefill"], left=rows["prefill"], **decoding)
    left.set(xlabel="share of generation time (%)", xlim=(0, 100))
    left.invert_yaxis()
    right.bar_label(right.barh(names, rows["steps"], color=BLUE), fmt=" {:.1f}x")
    right.set(xlabel="TTFT over one decoding step (x)", xlim=(0, 1.18 * rows["steps"].max()))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def read_attention(path: Path) -> tuple[NDArray[numpy.float64], str]:
    """The scores in an ``attention.npz``, and the model and dataset they are of.  # (layers, tokens)

    Raises:
        UserError: the file holds no such array.
    """
    with library_errors(f"{path} holds no attention scores", "; python run.py experiment=fig2 measures them again"):
        with numpy.load(path) as stored:
            scores = stored["scores"].astype(float)
            title = f"{stored['model']}, {stored['task']}" if {"model", "task"} <= set(stored) else path.parent.name
        if scores.ndim != 2 or not (numpy.isfinite(scores) & (scores >= 0)).all() or not scores.any():
            raise ValueError(f"{scores.shape} numbers, not (layers, tokens) shares of the attention")
    return scores, title


@styled()
def figure2(results: Results) -> Figure | None:
    """A row for each attention map: (a) layer by token index; (b) distribution of the tokens' means over layers."""
    if not results.attention:
        return None
    figure = Figure(figsize=(9, 3.9 * len(results.attention)))
    rows = figure.subplots(len(results.attention), 2, width_ratios=(3, 2), squeeze=False)
    for (left, right), path in zip(rows, results.attention, strict=True):
        scores, title = read_attention(path)
        heat_map(left, scores, title)
        distribution(right, scores.mean(axis=0))
    return figure


def heat_map(axes: Axes, scores: NDArray[numpy.float64], title: str) -> None:
    """Each layer's row is the attention of the last token, averaged over heads.  # scores: (layers, tokens)"""
    layers, tokens = scores.shape
    highest = float(scores.max())
    floor = max(float(numpy.quantile(scores[scores > 0], 0.02)), highest * 1e-6)
    axes.grid(visible=False)
    extent = (0, tokens, layers - 0.5, -0.5)
    look: Any = {"aspect": "auto", "cmap": "cividis", "interpolation_stage": "data"}
    image = axes.imshow(scores.clip(floor), norm=LogNorm(floor, highest), extent=extent, **look)
    axes.figure.colorbar(image, ax=axes, label="attention score", format="{x:g}")
    axes.set(title=f"(a) {title}", xlabel="prompt token index", ylabel="layer (from 0)")


def distribution(axes: Axes, mean: NDArray[numpy.float64]) -> None:
    """How many tokens have which score, and how few hold most of the attention.  # mean: (tokens,)"""
    positive = mean[mean > 0]
    bins = numpy.geomspace(positive.min(), positive.max(), 41)
    axes.hist(positive, bins=list(bins), weights=numpy.full(len(positive), 100 / len(mean)), color=BLUE)
    falling = numpy.sort(mean)[::-1]
    mass = falling.cumsum() / falling.sum()
    for share, colour, line in MASSES:
        count = int(numpy.searchsorted(mass, share)) + 1
        label = f"{share:.0%} of the attention: {count / len(mean):.1%} of the tokens"
        axes.axvline(falling[min(count, len(mean)) - 1], color=colour, linestyle=line, label=label)
    axes.set(title="(b) distribution", xscale="log", xlabel="mean attention score over layers", ylabel="tokens (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15))
