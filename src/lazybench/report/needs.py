"""Which method for which need: a table of what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from lazybench.methods import title
from lazybench.report.leaderboard import FLOPS, MEMORY
from lazybench.report.parts import Part, against, fullest, kl
from lazybench.report.statistics import LEAST_SAMPLES, Estimate
from lazybench.report.text import format_estimate
from lazybench.run.record import Record

BIGGER = ("qwen_1_5b_1500", "qwen_1_5b_800")
SIDES = (("smollm2_1500",), BIGGER)  # of each model the part with the most records stands for it


@dataclass(frozen=True)
class Need:
    """What somebody wants, and by which samples it is answered."""

    words: str
    parts: tuple[tuple[str, ...], ...] = SIDES
    asks: Callable[[Record], bool] = lambda record: True
    ratio: tuple[str, float] = (FLOPS, 2.0)
    draft: bool = False  # whether a draft model is at hand


NEEDS = (
    Need("a long document and a question", asks=lambda record: record.category in ("single_doc_qa", "multi_doc_qa")),
    Need(
        "one fact in the middle",
        (("smollm2_needle",), ("qwen_1_5b_needle",)),
        lambda record: 0.2 <= float(str((record.details or {}).get("depth", 0))) <= 0.8,
        (FLOPS, 1.5),
    ),
    Need("code", asks=lambda record: record.category == "code"),
    Need("only memory", ratio=(MEMORY, 2.0)),
    Need("2x at the least loss"),
    Need("a model with sliding windows", (("gemma_270m_1500",),)),
    Need("a draft model at hand", (BIGGER,), draft=True),
)


def which(parts: dict[str, Part]) -> str:
    """A row for each need: the method that is closest on all its models, at its setting nearest to the wanted speed."""
    rows: list[str] = []
    for need in NEEDS:
        matched, ratio = need.ratio
        there = [part.only(need.asks) for names in need.parts if (part := fullest(parts, names))]
        found = [(part, part.at(ratio, matched)) for part in there]
        found = [(part, of) for part, of in found if max(map(len, of.values()), default=0) >= LEAST_SAMPLES]
        shared = set.intersection(*(set(of) for _, of in found)) if found else set()
        shared -= set() if need.draft else {"spec_prefill"}
        if not shared:
            continue
        best = min(sorted(shared), key=lambda method: sum(math.log(kl(of[method]).value) for _, of in found))
        level = [
            title(method)
            for method in found[0][1]
            if method in shared - {best} and not any(against(of[best], of[method]).excludes(1) for _, of in found)
        ]
        measured, typed = zip(*(_nearest(part, best, need) for part, _ in found), strict=True)
        name = title(best) + (f"; not told apart: {', '.join(level)}" if level else "")
        rows.append(f"| {need.words} | {name} | {'<br>'.join(measured)} | {'<br>'.join(dict.fromkeys(typed))} |")
    return "\n".join(["| need | method | measured | command |", "| --- | --- | --- | --- |", *rows]) if rows else ""


def _nearest(part: Part, method: str, need: Need) -> tuple[str, str]:
    """What a method's setting nearest to the wanted ratio saves and loses, and how it is typed."""
    column = "flops_ratio" if need.ratio[0] == FLOPS else "memory_ratio"
    settings = part.settings.query("method_name == @method").to_dict("records")
    row = min(settings, key=lambda row: abs(math.log(row[column] / need.ratio[1])))
    loss = format_estimate(Estimate(row["kl"], row["kl_low"], row["kl_high"]), 3)
    saved = f"{row['flops_ratio']:.2f}x" if column == "flops_ratio" else f"{row['memory']:.0%} of the KV cache"
    lost = [f"KL {loss}", f"{row['same_token']:.0%} same tokens"]
    lost += [f"{row['relative_score']:.0%} of the score"] if math.isfinite(row["relative_score"]) else []
    params = json.loads(row["params"])
    params |= {"draft": "FILE"} if "draft" in params else {}
    typed = yaml.safe_dump({"method": method, **params}, default_flow_style=True, sort_keys=False, width=math.inf)
    return (
        f"{part.title}: {saved}, {', '.join(lost)}, n={row['n']}",
        f"`python run.py 'methods=[baseline,{typed.strip()}]'`",
    )
