"""Schedules that papers state, by the names that ``pruning=NAME`` takes: what differs from the defaults.

``paper``           figure 4 of LazyLLM: 30% of the layers, prune 30% of the tokens that entered, and so on three times,
                    then the last 10%. For Llama 2 7B (32 layers) these are figure 7's stages 1-9, 10-19, 20-28, 29-32.
``none``            nothing pruned: the engine's own cost, beside plain generate.
``authors_linear``  the authors' own schedule, as a later paper of theirs gives it (KV Prediction, arXiv 2410.08391):
                    pruning starts at 30% of the depth and ends at 90%; in between the kept share of the whole prompt
                    falls linearly from layer to layer. 0.75 to 0.25 is one of the pairs that it reports.
``table1_...``      LazyLLM's TTFT speedup on one category of table 1, Llama 2 7B or XGen 7B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPTHS = (0.3, 0.6, 0.9)
# with 9 of 32 layers at full length the speedup ends at 32 / 9 = 3.56; close to it next to nothing is kept
EARLIER = (0.15, 0.45, 0.75)

# The paper does not print its keep ratios. Each of these is the equal one k at every pruning layer for which 32 layers
# cost as 9 + 10k + 9k^2 + 4k^3 (at EARLIER: 4 + 10k + 10k^2 + 8k^3; attention's own few percent left out):
# 32 over that is table 1's TTFT speedup.
TABLE_1 = {
    "single_doc": (DEPTHS, 0.759),
    "multi_doc": (DEPTHS, 0.344),
    "summarization": (DEPTHS, 0.705),
    "few_shot": (DEPTHS, 0.396),
    "synthetic": (DEPTHS, 0.177),
    "code": (DEPTHS, 0.488),
    "xgen_single_doc": (DEPTHS, 0.48),
    "xgen_multi_doc": (DEPTHS, 0.247),
    "xgen_summarization": (DEPTHS, 0.5),
    "xgen_few_shot": (EARLIER, 0.364),
    "xgen_synthetic": (EARLIER, 0.216),
    "xgen_code": (EARLIER, 0.358),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"depths": DEPTHS, "keep": (0.7, 0.7, 0.7)},
    "none": {"layers": (), "keep": ()},
    "authors_linear": {"kind": "linear", "start": 0.3, "end": 0.9, "r0": 0.75, "r1": 0.25},
    **{f"table1_{name}": {"depths": depths, "keep": (keep,) * 3} for name, (depths, keep) in TABLE_1.items()},
}
