"""Why a TTFT speedup becomes this overall speedup and no other: the prefill's share of the time, and the steps.

With prefill share f of the plain model's generation, TTFT speedup T and decoding steps that take d times as long, the
overall speedup for as many steps is ``1 / (f / T + (1 - f) * d)``.
"""

from __future__ import annotations

import math
from functools import partial

import pandas

from lazybench.report import paper, statistics
from lazybench.report.names import category_title, method_title
from lazybench.report.statistics import Measured
from lazybench.report.tables import number

CAPTION = (
    "From the TTFT speedup to the overall one: prefill %, of the plain model's generation; overall if steps cost the "
    "same: what the share and the TTFT speedup alone would give. Paper: the prefill % and the decoding step x that its "
    f"two speedups imply, the one with the other's plain value (prefill {paper.PREFILL_SHARE_OF_GENERATION:.0%}, "
    "figure 1; steps as fast as the plain model's)"
)
OF_PAPER = "paper, Llama 2 7B"


def overall(prefill_share: float, ttft_speedup: float, decode_step: float = 1.0) -> float:
    """The overall speedup for equal numbers of steps.

    >>> overall(0.5, 2.0)
    1.3333333333333333
    """
    return 1 / (prefill_share / ttft_speedup + (1 - prefill_share) * decode_step)


def implied_share(ttft_speedup: float, overall_speedup: float) -> float:
    """The prefill share that the two speedups imply where the steps cost the same; NaN where they can't."""
    if ttft_speedup <= 1 or not 1 <= overall_speedup <= ttft_speedup:
        return math.nan
    return (1 - 1 / overall_speedup) / (1 - 1 / ttft_speedup)


def implied_step(prefill_share: float, ttft_speedup: float, overall_speedup: float) -> float:
    """How much longer a decoding step takes than the plain model's, where the share is known."""
    return (1 / overall_speedup - prefill_share / ttft_speedup) / (1 - prefill_share)


def table(samples: pandas.DataFrame) -> pandas.DataFrame:
    """One row for each model, category, method and variant with times, then the paper's; empty without times.

    Args:
        samples: from ``paired_samples``.
    """
    timed = samples[(samples["method"] != "baseline") & samples["baseline_decode_step_s"].notna()]
    rows = []
    for key, one in timed.groupby(["model", "category", "method", "variant"], sort=False):
        model, category, method, variant = map(str, key)
        of = partial(Measured.of, samples=None, tasks=one["task"])  # every task weighs the same, as in other tables
        share = statistics.mean(of(one["baseline_ttft_s"])) / statistics.mean(of(one["baseline_generation_s"]))
        faster = statistics.median_ratio(of(one["baseline_ttft_s"] / one["ttft_s"])).value
        step = statistics.median_ratio(of(one["decode_step_s"] / one["baseline_decode_step_s"])).value
        measured = statistics.median_ratio(of(one["baseline_generation_s"] / one["same_steps_s"])).value
        prompt, new = one["prompt_tokens"].mean(), one["baseline_output_tokens"].mean()
        rows.append(
            {
                "model": model,
                "category": category_title(category),
                "method": method_title(method, variant),
                "n": str(len(one)),
                "prompt + new tokens": f"{prompt:.0f} + {new:.0f}",
                **_cells(share, faster, step, measured, overall(share, faster)),
            }
        )
    return pandas.DataFrame(rows + _of_paper()) if rows else pandas.DataFrame()


def _of_paper() -> list[dict[str, str]]:
    prefill = paper.table1().query("method == 'lazyllm'").set_index("category")["llama2_ttft_speedup"]
    ttft: dict[str, float] = {str(category): float(value) for category, value in prefill.items()}
    whole = paper.table2().set_index("category")["llama2_generation_speedup"]
    speedups: dict[str, float] = {str(category): float(value) for category, value in whole.items()}
    share = paper.PREFILL_SHARE_OF_GENERATION
    return [
        {
            "model": OF_PAPER,
            "category": category_title(category),
            "method": method_title("lazyllm", ""),
            "n": "",
            "prompt + new tokens": "",
            **_cells(
                implied_share(ttft[category], speedup),
                ttft[category],
                implied_step(share, ttft[category], speedup),
                speedup,
                overall(share, ttft[category]),
            ),
        }
        for category, speedup in speedups.items()
    ]


def _cells(share: float, ttft: float, step: float, measured: float, same_steps: float) -> dict[str, str]:
    return {
        "TTFT speedup": number(ttft, 2),
        "prefill %": number(100 * share, 0),
        "decoding step x": number(step, 2),
        "overall speedup": number(measured, 2),
        "overall if steps cost the same": number(same_steps, 2),
    }
