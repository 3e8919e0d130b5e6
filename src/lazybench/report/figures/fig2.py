"""Figure 2: attention of the prompt's tokens with respect to the next token is sparse, in every layer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lazybench.errors import UserError
from lazybench.report.figures.style import BLUE, GREEN, ORANGE, VERMILION, styled

COLUMNS = 400  # of the heat map; longer prompts are averaged in bins
MASSES = ((0.5, ORANGE, "-"), (0.9, GREEN, "--"), (0.99, VERMILION, ":"))


def read_attention(path: Path) -> tuple[NDArray[numpy.float64], str]:
    """The scores in an ``attention.npz``, and the model and dataset they are of.  # (layers, tokens)

    Raises:
        UserError: the file holds no such array.
    """
    try:
        with numpy.load(path) as stored:
            scores = stored["scores"].astype(float)
            title = f"{stored['model']}, {stored['task']}" if {"model", "task"} <= set(stored) else path.parent.name
        if scores.ndim != 2:
            raise ValueError(f"scores have {scores.ndim} dimensions, 2 (layers, tokens) are needed")
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(
            f"{path} holds no attention scores: {error}; python run.py experiment=fig2 measures them again"
        ) from error
    return scores, title


@styled()
def draw(scores: NDArray[numpy.float64], title: str) -> Figure:
    """(a) heat map, layer by token index; (b) distribution of each token's mean score over layers.

    Args:
        scores: (layers, tokens), each row the attention of the last token, averaged over heads.
    """
    layers, tokens = scores.shape
    edges = numpy.linspace(0, tokens, min(tokens, COLUMNS) + 1).astype(int)
    binned = numpy.stack([scores[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1)
    mean = scores.mean(axis=0)
    floor = max(float(numpy.quantile(binned[binned > 0], 0.02)), float(binned.max()) * 1e-6)
    figure = Figure(figsize=(9, 3.9))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.grid(visible=False)
    extent = (0, tokens, layers - 0.5, -0.5)
    norm = LogNorm(floor, float(binned.max()))
    image = left.imshow(binned.clip(floor), aspect="auto", cmap="cividis", norm=norm, extent=extent)
    figure.colorbar(image, ax=left, label="attention score", format="{x:g}")
    left.set(title=f"(a) {title}", xlabel="prompt token index", ylabel="layer (from 0)")
    positive = mean[mean > 0]
    bins = numpy.geomspace(positive.min(), positive.max(), 41)
    right.hist(positive, bins=bins, weights=numpy.full(len(positive), 100 / len(mean)), color=BLUE)
    falling = numpy.sort(mean)[::-1]
    mass = falling.cumsum() / falling.sum()
    for share, colour, line in MASSES:
        count = int(numpy.searchsorted(mass, share)) + 1
        label = f"{share:.0%} of the attention: {count / tokens:.1%} of the tokens"
        right.axvline(falling[min(count, tokens) - 1], color=colour, linestyle=line, label=label)
    right.set(xscale="log", xlabel="mean attention score over layers", ylabel="tokens (%)")
    right.xaxis.set_major_formatter("{x:g}")
    right.set_title("(b) distribution")
    figure.legend(fontsize=8, loc="outside lower right", ncols=len(MASSES))
    return figure
