"""Figure 1: the share of prefill and decoding in the generation time, and TTFT over one decoding step."""

from __future__ import annotations

import pandas
from matplotlib.figure import Figure

from lazybench.report import paper
from lazybench.report.figures.style import BLUE, ORANGE, new_figure, styled
from lazybench.report.names import with_setting


def shares(samples: pandas.DataFrame) -> pandas.DataFrame:
    """Per model, of the baseline: ``prefill_share`` of the generation time and ``ttft_in_decode_steps``.

    Args:
        samples: from ``by_sample``.
    """
    baseline = with_setting(samples[(samples["method"] == "baseline") & samples["decode_step_s"].notna()])
    sums = baseline.groupby("model", sort=False)[["ttft_s", "generation_s", "decode_step_s"]].sum()
    return pandas.DataFrame(
        {
            "prefill_share": sums["ttft_s"] / sums["generation_s"],
            "ttft_in_decode_steps": sums["ttft_s"] / sums["decode_step_s"],
            "mean_prompt_tokens": baseline.groupby("model", sort=False)["prompt_tokens"].mean(),
            "mean_output_tokens": baseline.groupby("model", sort=False)["output_tokens"].mean(),
        }
    ).reset_index()


def draw(samples: pandas.DataFrame) -> Figure:
    """Two panels of bars, the paper's Llama 2 7B on an A100 below ours."""
    rows = shares(samples)
    names = [
        f"{row.model}\n{row.mean_prompt_tokens:.0f} + {row.mean_output_tokens:.0f} tokens" for row in rows.itertuples()
    ]
    names.append("paper: Llama 2 7B, A100\n3376 + 68 tokens")
    prefill = [*rows["prefill_share"], paper.PREFILL_SHARE_OF_GENERATION]
    steps = [*rows["ttft_in_decode_steps"], paper.TTFT_OVER_DECODE_STEP]
    with styled():
        figure = new_figure(8, 1.2 + 0.55 * len(names))
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(names, [100 * share for share in prefill], color=BLUE, label="prefill (TTFT)")
        left.barh(
            names,
            [100 * (1 - share) for share in prefill],
            left=[100 * share for share in prefill],
            color=ORANGE,
            hatch="//",
            edgecolor="white",
            label="decoding",
        )
        for index, share in enumerate(prefill):
            left.text(100 * share - 1, index, f"{share:.0%}", va="center", ha="right", color="white")
        left.set(xlabel="share of generation time (%)", xlim=(0, 100))
        left.invert_yaxis()
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        bars = right.barh(names, steps, color=BLUE)
        right.bar_label(bars, [f" {step:.1f}x" for step in steps])
        right.set(xlabel="TTFT over one decoding step (x)", xlim=(0, 1.18 * max(steps)))
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
