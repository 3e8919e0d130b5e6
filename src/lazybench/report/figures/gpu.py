"""``experiment=gpu``: times, memory and launches of every method, by model and prompt length."""

from __future__ import annotations

import pandas

from lazybench.report.names import method_title
from lazybench.report.results import Results
from lazybench.report.tables import number

COUNTS = ("prefill_launches", "prefill_waits", "step_launches", "step_waits")
# a column's heading, its factor and its digits; x: how many times as fast as the baseline
COLUMNS: dict[str, tuple[str, float, int]] = {
    "ttft_s": ("TTFT ms", 1e3, 1),
    "ttft_s_ratio": ("TTFT x", 1, 2),
    "decode_step_s": ("step ms", 1e3, 2),
    "decode_step_s_ratio": ("step x", 1, 2),
    "generation_s": ("overall s", 1, 2),
    "generation_s_ratio": ("overall x", 1, 2),
    "added_memory_bytes": ("memory beside weights GiB", 2.0**-30, 2),
    "revived_tokens_per_step": ("revived a step", 1, 1),
    **{name: (name.replace("_", " "), 1, 0) for name in COUNTS},
}


def table(results: Results) -> pandas.DataFrame:
    """One row per model, prompt length and method of the runs that counted launches, as text: medians over all of it.

    A method that failed has the error in place of times.
    """
    rows = [
        {**vars(record), **(record.details or {}), "label": model, "params": record.setting}
        for model, record in results.labelled
    ]
    frame = pandas.DataFrame(rows)
    if frame.empty or "step_launches" not in frame:
        return pandas.DataFrame()
    frame = frame[frame.groupby("label")["step_launches"].transform("count") > 0]
    names = [name for name in COLUMNS if not name.endswith("_ratio")]
    values = frame.reindex(columns=["prompt_tokens", *names]).apply(pandas.to_numeric, errors="coerce")
    keys = [frame[name] for name in ("label", "task", "method", "params")]
    found = values.groupby(keys, sort=False).median()
    found["error"] = frame.groupby(keys, sort=False)["error"].first()
    found = found.reset_index().sort_values(["label", "prompt_tokens"], kind="stable", ignore_index=True)
    plain = found[["label", "task"]].merge(found[found["method"] == "baseline"], on=["label", "task"], how="left")
    for name in ("ttft_s", "decode_step_s", "generation_s"):
        found[f"{name}_ratio"] = plain[name] / found[name]
    shown = {
        "model": found["label"],
        "prompt": [task.rpartition("_")[2] for task in found["task"]],
        "method": [method_title(*pair) for pair in zip(found["method"], found["params"], strict=True)],
    }
    for name, (heading, factor, digits) in COLUMNS.items():
        shown[heading] = [number(factor * value, digits) for value in found[name]]
    shown["failed"] = [error[:80] if isinstance(error, str) else "" for error in found["error"]]
    return pandas.DataFrame(shown)
