"""Methods at equal memory: what KV cache and Aux Cache hold together at the end, of the plain model's KV cache.

Matched as the leaderboard matches speeds, with the **memory ratio** in their place: the plain model's KV cache over
both of the method's. Pruning that never revives, eviction and both together stand on one axis; so does revival, which
pays for its Aux Cache here.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from lazybench.report import statistics
from lazybench.report.curves import curves_of, divergence, flops_ratio, same_token, with_quantities
from lazybench.report.leaderboard import Section, bounded, judged_samples, named
from lazybench.report.leaderboard import readable as readable_section
from lazybench.report.names import method_title
from lazybench.report.results import Results
from lazybench.report.samples import settings_label
from lazybench.report.statistics import Measured
from lazybench.report.tables import number

MEMORY = "memory ratio"
RATIOS = (1.25, 1.5, 2.0, 4.0)
READING = (
    "Memory %: bytes of KV cache and Aux Cache at the end, of the plain model's KV cache; memory ratio: its inverse, "
    "the median over samples. A token in the Aux Cache costs one hidden state, whatever number of layers it still "
    "lacks; in the KV cache it costs a key and a value in each layer that computed it. A method stands at a ratio "
    "where two of its settings enclose it."
)


def memory_ratios(samples: pandas.DataFrame) -> dict[tuple[str, str], float]:
    """For each method and its settings of one model that says what it holds: the median of its memory ratios."""
    held = samples["kv_bytes_end"] + samples["aux_bytes_end"].fillna(0)
    ratios = samples.assign(ratio=samples["baseline_kv_bytes_end"] / held).dropna(subset="ratio")
    return {
        (str(method), str(params)): statistics.median_ratio(Measured.of(rows["ratio"], None, rows["task"])).value
        for (method, params), rows in ratios.groupby(["method", "params"], sort=False)
    }


def settings(results: Results) -> pandas.DataFrame:
    """Every setting that was measured, by falling memory; one row each."""
    found = []
    for model, samples in judged_samples(results):
        ratios = memory_ratios(samples)
        samples = with_quantities(samples[samples["method"] != "baseline"])
        for (method, params), rows in samples.groupby(["method", "params"], sort=False):
            ratio = ratios.get((str(method), str(params)))
            if ratio is None:
                continue
            one = rows.set_index(["task", "sample_id"])
            kl = divergence(one)
            found.append(
                {
                    "model": model,
                    "method": method_title(str(method), ""),
                    "settings": settings_label(str(method), str(params)),
                    "memory": 1 / ratio,
                    "kv_ratio": one["kv_ratio"].mean(),
                    "aux_ratio": one["aux_ratio"].mean(),
                    **named("kl", kl),
                    "kl_later": divergence(one, "fidelity_later_kl").value,
                    **named("same_token", same_token(one)),
                    "flops_ratio": flops_ratio(rows),
                    "n": len(one),
                    "bounds": kl.kind,
                }
            )
    table = pandas.DataFrame(found)
    return table.sort_values(["model", "memory"], ascending=[True, False], ignore_index=True) if found else table


def readable(table: pandas.DataFrame) -> pandas.DataFrame:
    """``settings`` as rounded text."""
    percent = {"memory %": "memory", "KV %": "kv_ratio", "Aux %": "aux_ratio"}
    return pandas.DataFrame(
        {
            "method": table["method"],
            "settings": table["settings"],
            **{title: [number(100 * value, 0) for value in table[name]] for title, name in percent.items()},
            "KL nats": bounded(table, "kl", 1, 3),
            "later": [number(value, 3) for value in table["kl_later"]],
            "same token %": bounded(table, "same_token", 100, 0),
            "FLOPs ratio": [number(value, 2) for value in table["flops_ratio"]],
            "n": table["n"].astype(str),
        }
    )


def readable_at(section: Section) -> pandas.DataFrame:
    """A section's table as text, without the methods that do not reach it."""
    table = section.table()
    return readable_section(table[table["n"] > 0])


def sections(results: Results, ratios: Sequence[float] = RATIOS) -> list[Section]:
    """Each model's methods at each memory ratio, without those that say nothing of their caches."""
    found = []
    for model, samples in judged_samples(results):
        curves = curves_of(samples, memory_ratios(samples))
        if curves:
            found += [Section(model, MEMORY, ratio, tuple(curves), {}) for ratio in ratios]
    return [section for section in found if any(map(len, section.samples))]
