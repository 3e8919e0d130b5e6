"""Figure 1: the share of prefill and decoding in the generation time, and TTFT over one decoding step."""

from __future__ import annotations

import pandas
from matplotlib.figure import Figure

from lazybench.report import paper
from lazybench.report.figures.style import BLUE, ORANGE, styled
from lazybench.report.summary import with_setting


def shares(samples: pandas.DataFrame) -> pandas.DataFrame:
    """Per model, of the baseline: ``prefill`` as a share of the generation time, ``steps`` that the TTFT is as long as.

    Args:
        samples: from ``by_sample``.
    """
    baseline = with_setting(samples[(samples["method"] == "baseline") & samples["decode_step_s"].notna()])
    groups = baseline.groupby("model", sort=False)
    sums = groups[["ttft_s", "generation_s", "decode_step_s"]].sum()
    found = groups[["prompt_tokens", "output_tokens"]].mean()
    found["prefill"] = sums["ttft_s"] / sums["generation_s"]
    found["steps"] = sums["ttft_s"] / sums["decode_step_s"]
    return found.reset_index()


@styled()
def draw(samples: pandas.DataFrame) -> Figure:
    """Two panels of bars, the paper's Llama 2 7B on an A100 below ours."""
    rows = shares(samples)
    rows.loc[len(rows)] = {
        "model": "paper: Llama 2 7B, A100",
        "prompt_tokens": 3376,
        "output_tokens": 68,
        "prefill": paper.PREFILL_SHARE_OF_GENERATION,
        "steps": paper.TTFT_OVER_DECODE_STEP,
    }
    names = [f"{row.model}\n{row.prompt_tokens:.0f} + {row.output_tokens:.0f} tokens" for row in rows.itertuples()]
    prefill = 100 * rows["prefill"]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    bars = left.barh(names, prefill, color=BLUE, label="prefill (TTFT)")
    left.bar_label(bars, [f"{share:.0f}%" for share in prefill], label_type="center", color="white")
    decoding = {"color": ORANGE, "hatch": "//", "edgecolor": "white", "label": "decoding"}
    left.barh(names, 100 - prefill, left=prefill, **decoding)
    left.set(xlabel="share of generation time (%)", xlim=(0, 100))
    left.invert_yaxis()
    bars = right.barh(names, rows["steps"], color=BLUE)
    right.bar_label(bars, [f" {step:.1f}x" for step in rows["steps"]])
    right.set(xlabel="TTFT over one decoding step (x)", xlim=(0, 1.18 * rows["steps"].max()))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
